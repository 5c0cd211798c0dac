//! Keeps a session to the primary: finds it, connects, proves that it is alive, and begins again when it is not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::session::Session;
use super::wire;
use super::{ANSWER_TIMEOUT, Shared, Up, is_of_moving_keys};
use crate::config::{Address, RedisConfig, Topology};
use crate::store::StoreError;
use crate::store::primary::locate::Locator;

/// Between two proofs that a session is alive.
const PROOF_INTERVAL: Duration = Duration::from_millis(500);
/// How often sentinels are asked where the primary is.
const SENTINEL_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A node of a cluster says itself when it no longer serves a slot; this is for nodes that are cut off.
const CLUSTER_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Between two tries to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);
/// How often a server that refused tracking is asked again: a permission may have been granted.
const TRACKING_RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// Runs until `closing` is cancelled.
pub async fn follow(shared: Arc<Shared>, redis: RedisConfig, closing: CancellationToken) {
    let is_fixed = matches!(redis.topology, Topology::Standalone(_) | Topology::Unix(_));
    let mut follower = Follower {
        locator: (!is_fixed).then(|| Locator::new(&redis)),
        shared: shared.clone(),
        redis,
        logged: Logged::default(),
    };
    tokio::select! {
        () = closing.cancelled() => {}
        () = follower.run() => {}
    }
    shared.end(wire::lost());
    follower.ask_another();
}

struct Follower {
    shared: Arc<Shared>,
    redis: RedisConfig,
    /// `None`: it never moves.
    locator: Option<Locator>,
    logged: Logged,
}

impl Follower {
    async fn run(&mut self) {
        loop {
            let error = self.keep_session().await;
            self.logged.away(&error);
            self.shared.set_away(error);
            sleep(RECONNECT_PAUSE).await;
        }
    }

    /// Connects, and returns why the session ended or did not begin.
    async fn keep_session(&mut self) -> StoreError {
        let at = match &mut self.locator {
            None => None,
            Some(locator) => match locator.primary().await {
                Ok(address) => Some(address),
                Err(error) => return error,
            },
        };
        let begun = self.begin(at.as_ref()).await;
        let ended = match begun {
            Ok(up) => self.watch(&up, at.as_ref()).await,
            Err(error) => error,
        };
        // The sentinel that named it may be cut off.
        self.ask_another();
        ended
    }

    async fn begin(&mut self, at: Option<&Address>) -> Result<Arc<Up>, StoreError> {
        let shared = self.shared.clone();
        let session = Session::connect(&self.redis, at, move |notification| {
            shared.notify(notification)
        })
        .await?;
        let asked_at = self.shared.now();
        let asked = async {
            let tracked = session.track(&self.shared.keys).await?;
            session.prove(&self.shared.keys).await.map(|()| tracked)
        };
        let tracked = timeout(ANSWER_TIMEOUT, asked)
            .await
            .unwrap_or_else(|_| Err(StoreError::timeout()))?;
        if let Some(moved) = self.moved_from(at).await {
            return Err(moved);
        }
        let at = at.map_or_else(|| self.redis.to_string(), Address::to_string);
        self.logged.up(&at, tracked.as_ref().err());
        let up = self
            .shared
            .begin(Arc::new(session), tracked.err(), asked_at);
        tokio::spawn(beat(self.shared.clone(), up.clone()));
        Ok(up)
    }

    /// Waits until the session is over, and returns why it is.
    async fn watch(&mut self, up: &Up, at: Option<&Address>) -> StoreError {
        let period = match self.redis.topology {
            Topology::Sentinel { .. } => SENTINEL_CHECK_INTERVAL,
            _ => CLUSTER_CHECK_INTERVAL,
        };
        loop {
            tokio::select! {
                () = up.session.wire.closed() => return self.shared.end(wire::lost()),
                () = sleep(period) => {}
            }
            if let Some(moved) = self.moved_from(at).await {
                return self.shared.end(moved);
            }
        }
    }

    /// Asks where the primary is. Nodes that do not answer do not end a session that works.
    async fn moved_from(&mut self, at: Option<&Address>) -> Option<StoreError> {
        let found = self.locator.as_mut()?.primary().await.ok()?;
        let moved = || StoreError::lost(format!("the primary is {found} now"), false);
        (at != Some(&found)).then(moved)
    }

    fn ask_another(&mut self) {
        if let Some(locator) = &mut self.locator {
            locator.ask_another();
        }
    }
}

/// Proves again and again that a session is alive, and ends it when it is not.
async fn beat(shared: Arc<Shared>, mut up: Arc<Up>) {
    let mut asked_for_tracking = Instant::now();
    loop {
        sleep(PROOF_INTERVAL).await;
        let at = shared.now();
        let proof = timeout(ANSWER_TIMEOUT, up.session.prove(&shared.keys)).await;
        match proof.unwrap_or_else(|_| Err(StoreError::timeout())) {
            Ok(()) => shared.proof.beat(at),
            // The slot of our keys is moving: keys that are not here may be on the other node, which does not tell us
            // of changes. Those that are here can still be read.
            Err(error) if is_of_moving_keys(&error) => {}
            Err(error) => {
                shared.withdraw(&up, error);
                return;
            }
        }
        if up.refused.is_none() || asked_for_tracking.elapsed() < TRACKING_RETRY_INTERVAL {
            continue;
        }
        asked_for_tracking = Instant::now();
        let at = shared.now();
        if let Ok(Ok(Ok(()))) = timeout(ANSWER_TIMEOUT, up.session.track(&shared.keys)).await {
            tracing::info!("Redis notifies changes now: client tracking is on");
            up = shared.begin(up.session.clone(), None, at);
        }
    }
}

/// What the log holds already.
#[derive(Default)]
struct Logged {
    is_away: bool,
    needs_a_person: bool,
    refusal: Option<String>,
}

impl Logged {
    fn up(&mut self, primary: &str, refused: Option<&StoreError>) {
        (self.is_away, self.needs_a_person) = (false, false);
        let Some(error) = refused else {
            self.refusal = None;
            tracing::info!(primary, "Redis is connected for reads and notifies changes");
            return;
        };
        tracing::info!(primary, "Redis is connected for reads");
        let text = error.to_string();
        if self.refusal.as_ref() != Some(&text) {
            tracing::warn!(
                %error,
                "Redis refuses client tracking: copies count as fresh for LOCAL_FRESH_MS only; \
                 grant +client|tracking and +hello, or connect to Redis 6 or later without a proxy"
            );
            self.refusal = Some(text);
        }
    }

    fn away(&mut self, error: &StoreError) {
        if error.needs_a_person() && !self.needs_a_person {
            self.needs_a_person = true;
            tracing::error!(%error, "Redis refuses reads: check its address, password, user and permissions");
        } else if !self.is_away {
            tracing::warn!(%error, "Redis is lost for reads; retrying");
        }
        self.is_away = true;
    }
}
