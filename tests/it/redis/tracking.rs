//! Reads over a connection that notifies changes: nothing that may have changed is called fresh.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use entitlement_sync::config::{Config, RedisConfig, Uses};
use entitlement_sync::keys::{Keys, Owner};
use entitlement_sync::reader::Stored;
use entitlement_sync::store::{Mark, Tracked, Tracking};

use super::sentinel::servers;
use testkit::certs::Certs;
use testkit::cluster::Cluster;
use testkit::sentinel::{MASTER, Sentinels};
use testkit::{Redis, TcpProxy, free_port, repo, until};

const LIMIT: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(60);
/// How long a value is fresh without tracking.
const FRESH: Duration = Duration::from_millis(700);
/// What docs/redis.md tells people to grant, and no more.
const RIGHTS: &str = "~production:* +hello +select +mget +client|tracking";
const METERED: &str = r#"{"f":{"calculatedEntitlement":{"feature":{"featureType":"NUMBER","meterType":"Incremental"}}}}"#;

fn config(variables: &[(&str, String)]) -> RedisConfig {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()));
    let loaded = Config::load_for(variables.collect(), &[Uses::Redis]);
    loaded.map_err(|errors| errors.0).unwrap().redis.unwrap()
}

fn on(port: u16, more: &[(&str, &str)]) -> RedisConfig {
    let mut variables = vec![
        ("REDIS_HOST", "127.0.0.1".to_owned()),
        ("REDIS_PORT", port.to_string()),
    ];
    variables.extend(
        more.iter()
            .map(|(name, value)| (*name, (*value).to_owned())),
    );
    config(&variables)
}

async fn start(redis: &RedisConfig) -> Tracked {
    start_with(redis, "production").await
}

async fn start_with(redis: &RedisConfig, prefix: &str) -> Tracked {
    let tracked = Tracked::start(redis, Keys::new(prefix), FRESH).unwrap();
    until("Redis is connected", LIMIT, async || tracked.is_up()).await;
    tracked
}

fn customer(id: &str) -> Owner<'_> {
    Owner {
        customer: id,
        resource: None,
    }
}

/// Reads until the value is fresh, as a caller would that keeps it.
async fn read_fresh(tracked: &Tracked, owner: Owner<'_>) -> (Stored, Mark) {
    let mut found = None;
    until("a value is read and fresh", LONG, async || {
        let Ok((stored, mark)) = tracked.read(owner).await else {
            return false;
        };
        found = Some((stored, mark));
        is_fresh(tracked, owner.customer, mark)
    })
    .await;
    found.unwrap()
}

fn is_fresh(tracked: &Tracked, customer: &str, mark: Mark) -> bool {
    tracked.fresh_age(customer, mark).is_some()
}

async fn goes_stale(what: &str, tracked: &Tracked, id: &str, mark: Mark) {
    until(what, LIMIT, async || !is_fresh(tracked, id, mark)).await;
}

fn is_on(tracked: &Tracked) -> bool {
    matches!(tracked.tracking(), Tracking::On)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_an_owner_is_notified_and_no_other() {
    let redis = Redis::start().await;
    let tracked = start(&on(redis.port(), &[])).await;
    assert!(is_on(&tracked));
    let resource = Owner {
        customer: "acme",
        resource: Some("site"),
    };
    redis.set("production:c_away", "{}");
    let changes: [&[&str]; 14] = [
        &["SET", "production:c_acme", "{}"],
        &["SET", "production:c_acme#timestamp", "2"],
        &["SET", "production:c_acme:metadata", "{}"],
        &["SET", "production:c_acme:f_seats", "{}"],
        &["SET", "production:c_acme:f_seats#timestamp", "1"],
        &["SET", "production:c_acme:credit_euro", "{}"],
        &["SET", "production:c_acme#purged", "1"],
        &["SET", "production:c_acme:r_site", "{}"],
        &["DEL", "production:c_acme:f_seats"],
        &["RENAME", "production:c_acme", "production:c_elsewhere"],
        &["RENAME", "production:c_away", "production:c_acme"],
        &["PEXPIRE", "production:c_acme:metadata", "1"],
        &["FLUSHDB"],
        &["FLUSHALL"],
    ];
    for change in changes {
        let (_, of_customer) = read_fresh(&tracked, customer("acme")).await;
        let (_, of_resource) = read_fresh(&tracked, resource).await;
        let (_, of_other) = read_fresh(&tracked, customer("other")).await;
        let learnt = tracked.mark();
        redis.cmd(change);
        for mark in [of_customer, of_resource, learnt] {
            goes_stale(&format!("{change:?} is notified"), &tracked, "acme", mark).await;
        }
        if change[0].starts_with("FLUSH") {
            assert!(!is_fresh(&tracked, "other", of_other), "{change:?}");
        } else {
            until("the other stays fresh", LIMIT, async || {
                is_fresh(&tracked, "other", of_other)
            })
            .await;
        }
        assert!(tracked.age("acme", of_customer) > Duration::ZERO);
    }
    // An expiry is a change of its own, after the command that set it.
    redis.cmd(&["SET", "production:c_acme:metadata", "{}", "PX", "400"]);
    until("the expiry is known", LIMIT, async || {
        let (stored, _) = read_fresh(&tracked, customer("acme")).await;
        stored.metadata.value.is_none()
    })
    .await;

    let (_, mark) = read_fresh(&tracked, customer("acme")).await;
    let (_, later) = read_fresh(&tracked, customer("later")).await;
    for key in [
        "production-acme",
        "production:entitlement-sync",
        "other:c_acme",
        "production:c_acm",
        "production:c_acme2",
    ] {
        redis.set(key, "1");
    }
    redis.set("production:c_later", "{}");
    goes_stale("what came after them is notified", &tracked, "later", later).await;
    assert!(is_fresh(&tracked, "acme", mark));
    assert_eq!(tracked.age("acme", mark), Duration::ZERO);
    assert!(tracked.invalidations() > 14);
    assert_eq!(tracked.losses(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_an_owner_is_read_as_it_is_stored() {
    let redis = Redis::start().await;
    let tracked = start(&on(redis.port(), &[])).await;
    let (stored, _) = tracked.read(customer("acme")).await.unwrap();
    assert_eq!(stored, Stored::default(), "nothing is stored");

    // More keys than one call asks for.
    let entry = &METERED[5..METERED.len() - 1];
    let features: Vec<String> = (0..700).map(|number| format!("f{number}")).collect();
    let entries: Vec<String> = features
        .iter()
        .map(|feature| format!("\"{feature}\":{entry}"))
        .collect();
    let map = format!("{{{},\"flag\":{{}}}}", entries.join(","));
    redis.set("production:c_acme:r_site", &map);
    redis.set("production:c_acme:r_site#timestamp", "7");
    redis.set("production:c_acme#timestamp", "5");
    redis.set("production:c_acme:r_site:metadata#timestamp", "6");
    for feature in &features {
        let key = format!("production:c_acme:r_site:f_{feature}");
        redis.set(&key, feature);
        redis.set(&format!("{key}#timestamp"), &format!("at {feature}"));
    }
    redis.cmd(&["DEL", "production:c_acme:r_site:f_f1"]);
    redis.cmd(&["RPUSH", "production:c_acme:r_site:metadata", "no string"]);
    let mut raw = redis::cmd("SET");
    raw.arg("production:c_acme:r_site:f_f2").arg(b"a\xffb");
    let () = raw.query(&mut redis.conn()).unwrap();
    let owner = Owner {
        customer: "acme",
        resource: Some("site"),
    };
    let (stored, mark) = read_fresh(&tracked, owner).await;
    assert_eq!(stored.entitlements.value.as_deref(), Some(map.as_str()));
    assert_eq!(stored.entitlements.timestamp.as_deref(), Some("7"));
    assert_eq!(stored.metadata.value, None);
    assert_eq!(stored.metadata.timestamp.as_deref(), Some("6"));
    assert_eq!(stored.customer_timestamp.as_deref(), Some("5"));
    assert_eq!(stored.usages.len(), 700);
    assert_eq!(stored.usages["f1"].value, None);
    assert_eq!(stored.usages["f1"].timestamp.as_deref(), Some("at f1"));
    assert_eq!(stored.usages["f2"].value.as_deref(), Some("a\u{fffd}b"));
    assert_eq!(stored.usages["f699"].value.as_deref(), Some("f699"));
    assert!(is_fresh(&tracked, "acme", mark));
}

/// What is read before Redis is lost is not fresh, and is read as it is after its return.
async fn survives(
    tracked: &Tracked,
    lose: impl AsyncFnOnce(),
    back: impl AsyncFnOnce(),
    value: &str,
) {
    let (_, mark) = read_fresh(tracked, customer("acme")).await;
    let losses = tracked.losses();
    lose().await;
    goes_stale("nothing is fresh", tracked, "acme", mark).await;
    // Away is known by now or by the first that asks, and then nothing waits.
    until("it is known to be away", LIMIT, async || {
        tracked.read(customer("acme")).await.is_err() && !tracked.is_up()
    })
    .await;
    assert!(matches!(tracked.tracking(), Tracking::Away(_)));
    let away = tracked.mark();
    assert!(!is_fresh(tracked, "acme", away));
    assert!(tracked.age("acme", mark) > Duration::ZERO);
    back().await;
    let (stored, fresh) = read_fresh(tracked, customer("acme")).await;
    assert_eq!(stored.entitlements.timestamp.as_deref(), Some(value));
    assert!(!is_fresh(tracked, "acme", mark) && !is_fresh(tracked, "acme", away));
    assert!(is_fresh(tracked, "acme", fresh) && is_on(tracked));
    assert!(tracked.losses() > losses);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_cut_silent_or_reset_leaves_nothing_fresh() {
    const KEY: &str = "production:c_acme#timestamp";
    let redis = Redis::start().await;
    let proxy = TcpProxy::start(redis.port()).await;
    let tracked = start(&on(proxy.port(), &[])).await;
    let mut returns = tracked.returns().unwrap();
    returns.mark_unchanged();
    survives(
        &tracked,
        async || proxy.cut().await,
        async || {
            redis.set(KEY, "1");
            proxy.restore().await;
        },
        "1",
    )
    .await;
    assert!(returns.has_changed().unwrap(), "its return is notified");
    survives(
        &tracked,
        async || {
            proxy.blackhole();
            redis.set(KEY, "2");
        },
        async || proxy.restore().await,
        "2",
    )
    .await;
    survives(
        &tracked,
        async || redis.freeze(),
        async || {
            redis.thaw();
            redis.set(KEY, "3");
        },
        "3",
    )
    .await;
    survives(
        &tracked,
        async || redis.kill(),
        async || {
            redis.restart().await;
            redis.set(KEY, "4");
        },
        "4",
    )
    .await;

    // A new session begins at once.
    let (_, mark) = read_fresh(&tracked, customer("acme")).await;
    proxy.reset().await;
    goes_stale("nothing is fresh", &tracked, "acme", mark).await;
    let (_, mark) = read_fresh(&tracked, customer("acme")).await;
    let clients: String = redis::from_redis_value(redis.cmd(&["CLIENT", "LIST"])).unwrap();
    let ours = clients
        .lines()
        .find(|line| line.contains("name=entitlement-sync-reads "))
        .unwrap();
    let id = ours.split(' ').find_map(|field| field.strip_prefix("id="));
    redis.cmd(&["CLIENT", "KILL", "ID", id.unwrap()]);
    goes_stale("nothing is fresh", &tracked, "acme", mark).await;
    redis.set(KEY, "5");
    let (stored, _) = read_fresh(&tracked, customer("acme")).await;
    assert_eq!(stored.entitlements.timestamp.as_deref(), Some("5"));

    tracked.close().await;
    assert!(!tracked.is_up() && tracked.read(customer("acme")).await.is_err());
    until("no connection is left", LIMIT, async || {
        proxy.connections() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_becomes_a_replica_is_left() {
    let (first, second) = (Redis::start().await, Redis::start().await);
    let tracked = start(&on(first.port(), &[])).await;
    let (_, mark) = read_fresh(&tracked, customer("acme")).await;
    first.cmd(&["REPLICAOF", "127.0.0.1", &second.port().to_string()]);
    goes_stale("nothing is fresh", &tracked, "acme", mark).await;
    until("it is left", LIMIT, async || !tracked.is_up()).await;
    let Tracking::Away(why) = tracked.tracking() else {
        panic!("it is used again");
    };
    assert!(why.starts_with("READONLY"), "{why}");
    first.cmd(&["REPLICAOF", "NO", "ONE"]);
    read_fresh(&tracked, customer("acme")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_is_followed_and_nothing_of_the_old_primary_is_fresh() {
    let servers = servers(2, &[]).await;
    let sentinels = Sentinels::start(&servers[0], 2, "").await;
    let tracked = start(&config(&[
        ("REDIS_SENTINEL_HOSTS", sentinels.hosts()),
        ("REDIS_SENTINEL_MASTER", MASTER.to_owned()),
    ]))
    .await;
    servers[0].set("production:c_acme#timestamp", "1");
    let (_, mark) = read_fresh(&tracked, customer("acme")).await;
    // It keeps its connections, and would go on as a primary.
    servers[0].freeze();
    goes_stale("nothing is fresh", &tracked, "acme", mark).await;
    until("the sentinels agree on another", LONG, async || {
        let primary = sentinels.primary();
        primary.is_some_and(|port| port != servers[0].port())
    })
    .await;
    let port = sentinels.primary().unwrap();
    let primary = servers.iter().find(|server| server.port() == port).unwrap();
    until("it takes writes", LONG, async || {
        let set = primary.try_cmd(&["SET", "production:c_acme#timestamp", "2"]);
        set.is_ok()
    })
    .await;
    servers[0].thaw();
    let (stored, _) = read_fresh(&tracked, customer("acme")).await;
    assert_eq!(stored.entitlements.timestamp.as_deref(), Some("2"));
    assert!(!is_fresh(&tracked, "acme", mark));
}

/// It is cut off from the sentinels, and goes on as a primary.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_that_does_not_know_of_it_is_left() {
    let (old, new) = (Redis::start().await, Redis::start().await);
    let sentinels = Sentinels::start(&old, 0, "").await;
    let tracked = start(&config(&[
        ("REDIS_SENTINEL_HOSTS", sentinels.hosts()),
        ("REDIS_SENTINEL_MASTER", MASTER.to_owned()),
    ]))
    .await;
    let (_, mark) = read_fresh(&tracked, customer("acme")).await;
    new.set("production:c_acme#timestamp", "2");
    sentinels.monitor(new.port());
    goes_stale("nothing is fresh", &tracked, "acme", mark).await;
    let (stored, _) = read_fresh(&tracked, customer("acme")).await;
    assert_eq!(stored.entitlements.timestamp.as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_takes_what_is_fresh_with_it() {
    const SLOT: u16 = 15_882;
    const KEY: &str = "{production}:c_acme#timestamp";
    let cluster = Cluster::start(0, SLOT).await;
    let seeds: Vec<String> = cluster
        .nodes
        .iter()
        .map(|node| format!("127.0.0.1:{}", node.port()))
        .collect();
    let redis = config(&[
        ("REDIS_HOST", seeds.join(",")),
        ("ENVIRONMENT_PREFIX", "{production}".to_owned()),
    ]);
    let tracked = start_with(&redis, "{production}").await;
    assert!(is_on(&tracked));
    let (from, to) = (cluster.owner(SLOT), cluster.other(SLOT));
    from.set(KEY, "1");
    let (_, mark) = read_fresh(&tracked, customer("acme")).await;
    // Nothing of it moves, so nothing tells of it.
    let (stored, absent) = read_fresh(&tracked, customer("absent")).await;
    assert_eq!(stored, Stored::default());
    // While it moves, what is not here may be written there. What is here can still be read.
    let node_id = |node: &Redis| -> String {
        redis::from_redis_value(node.cmd(&["CLUSTER", "MYID"])).unwrap()
    };
    let slot = SLOT.to_string();
    to.cmd(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &node_id(from)]);
    from.cmd(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &node_id(to)]);
    goes_stale("what is not there", &tracked, "absent", absent).await;
    assert!(tracked.read(customer("absent")).await.is_err());
    assert!(tracked.is_up(), "an error of some keys is not one of Redis");
    cluster.move_slot(SLOT, from, to).await;
    to.set(KEY, "2");
    to.set("{production}:c_absent#timestamp", "3");
    goes_stale("what moved is not fresh", &tracked, "acme", mark).await;
    for (id, value) in [("acme", "2"), ("absent", "3")] {
        let (stored, mark) = read_fresh(&tracked, customer(id)).await;
        assert_eq!(
            stored.entitlements.timestamp.as_deref(),
            Some(value),
            "{id}"
        );
        to.set(&format!("{{production}}:c_{id}"), "{}");
        goes_stale("the new node notifies changes", &tracked, id, mark).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unix_sockets_and_tls_are_ways_to_it() {
    let certs = Certs::new();
    certs.signed("redis", "DNS:redis.test");
    let folder = tempfile::TempDir::new().unwrap();
    let socket = folder.path().join("redis.sock");
    let socket = socket.to_str().unwrap();
    let port = free_port();
    let redis = Redis::start_with(&[
        "--unixsocket",
        socket,
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &certs.file("redis.pem"),
        "--tls-key-file",
        &certs.file("redis.key"),
        "--tls-ca-cert-file",
        &certs.file("ca.pem"),
        "--tls-auth-clients",
        "no",
    ])
    .await;
    let ca = certs.file("ca.pem");
    let tls = [("REDIS_TLS", "1"), ("REDIS_TLS_CA_FILE", ca.as_str())];
    let named = [tls[0], tls[1], ("REDIS_TLS_SERVER_NAME", "redis.test")];
    let by_socket = config(&[("REDIS_URL", format!("unix://{socket}"))]);
    for way in [by_socket, on(port, &named)] {
        let tracked = start(&way).await;
        let (_, mark) = read_fresh(&tracked, customer("acme")).await;
        redis.set("production:c_acme", "{}");
        goes_stale("a change is notified", &tracked, "acme", mark).await;
    }
    let keys = Keys::new("production");
    let tracked = Tracked::start(&on(port, &tls), keys, FRESH).unwrap();
    until("it is known what is wrong", LIMIT, async || {
        let why = "TLS: the certificate of Redis is for another name";
        matches!(tracked.tracking(), Tracking::Away(text) if text.starts_with(why))
    })
    .await;
}

/// What is logged on this thread while it lives.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn count(&self, text: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap())
            .matches(text)
            .count()
    }
}

#[tokio::test]
async fn the_log_says_once_what_happened() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let redis = Redis::start().await;
    let proxy = TcpProxy::start(redis.port()).await;
    let rights = "on >canary ~* +@all -client|tracking";
    let mut grant = vec!["ACL", "SETUSER", "reads"];
    grant.extend(rights.split(' '));
    redis.cmd(&grant);
    let login = [("REDIS_USER", "reads"), ("REDIS_PASSWORD", "canary")];
    let tracked = start(&on(proxy.port(), &login)).await;
    for _ in 0..2 {
        read_fresh(&tracked, customer("acme")).await;
        proxy.cut().await;
        until("it is lost", LIMIT, async || !tracked.is_up()).await;
        let before = proxy.accepted();
        // Held open and closed again: tries that fail.
        proxy.restore().await;
        proxy.blackhole();
        until("it is tried", LIMIT, async || proxy.accepted() > before).await;
        proxy.cut().await;
        proxy.restore().await;
        until("it is back", LIMIT, async || tracked.is_up()).await;
    }
    let text = "Redis refuses client tracking: copies count as fresh for LOCAL_FRESH_MS only";
    assert_eq!(log.count(text), 1);
    assert_eq!(log.count("Redis is lost for reads"), 2);
    assert_eq!(log.count("Redis is connected for reads"), 3);
    assert_eq!(log.count("notifies changes"), 0);
    redis.cmd(&["ACL", "SETUSER", "reads", "+client|tracking"]);
    proxy.reset().await;
    until("tracking is on", LIMIT, async || is_on(&tracked)).await;
    assert_eq!(log.count("and notifies changes"), 1);
    redis.cmd(&["ACL", "SETUSER", "reads", "resetpass"]);
    proxy.reset().await;
    until("it is refused", LIMIT, async || log.count("ERROR") > 0).await;
    assert_eq!(log.count("Redis refuses reads"), 1);
    assert_eq!(log.count("canary") + log.count("acme"), 0);
}

fn refusal(tracked: &Tracked) -> String {
    match tracked.tracking() {
        Tracking::Refused(why) => why,
        other => panic!("{other:?}"),
    }
}

/// What is read is fresh for a time, whether it changes or not, and then it is not.
async fn is_fresh_by_time(redis: &Redis, tracked: &Tracked) {
    for change in [false, true] {
        let (_, mark) = read_fresh(tracked, customer("acme")).await;
        assert!(is_fresh(tracked, "acme", tracked.mark()));
        if change {
            redis.cmd(&["SET", "production:c_acme#timestamp", "9"]);
        }
        goes_stale("its time is over", tracked, "acme", mark).await;
        assert!(tracked.age("acme", mark) >= FRESH);
    }
    let (stored, _) = read_fresh(tracked, customer("acme")).await;
    assert_eq!(stored.entitlements.timestamp.as_deref(), Some("9"));
    assert_eq!(stored.metadata.value, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_permissions_suffice_and_without_tracking_time_decides() {
    let redis = Redis::start().await;
    let grant = |rights: &str| {
        let mut command = vec!["ACL", "SETUSER", "reads", "reset", "on", ">pass"];
        command.extend(rights.split(' '));
        redis.cmd(&command);
    };
    let login = [
        ("REDIS_USER", "reads"),
        ("REDIS_PASSWORD", "pass"),
        ("REDIS_DB", "0"),
    ];
    grant(RIGHTS);
    let tracked = start(&on(redis.port(), &login)).await;
    assert!(is_on(&tracked));
    let (_, mark) = read_fresh(&tracked, customer("acme")).await;
    redis.set("production:c_acme", "{}");
    goes_stale("a change is notified", &tracked, "acme", mark).await;
    let text = std::fs::read_to_string(repo("docs/redis.md")).unwrap();
    assert!(
        text.contains(RIGHTS),
        "docs/redis.md does not name {RIGHTS}"
    );

    grant(&RIGHTS.replace(" +client|tracking", ""));
    let tracked = start(&on(redis.port(), &login)).await;
    let why = refusal(&tracked);
    assert!(why.starts_with("NOPERM") && !why.contains("reads"), "{why}");
    is_fresh_by_time(&redis, &tracked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_only_speaks_resp2_is_read_all_the_same() {
    let options = ["--rename-command", "HELLO", "", "--requirepass", "secret"];
    let redis = Redis::start_with(&options).await;
    let login = [("REDIS_PASSWORD", "secret"), ("REDIS_DB", "1")];
    let tracked = start(&on(redis.port(), &login)).await;
    assert!(refusal(&tracked).starts_with("ERR unknown command"));
    let set = redis::pipe()
        .cmd("SELECT")
        .arg(1)
        .cmd("SET")
        .arg(&["production:c_acme", METERED])
        .query::<()>(&mut redis.conn());
    set.unwrap();
    let (stored, mark) = read_fresh(&tracked, customer("acme")).await;
    assert_eq!(stored.entitlements.value.as_deref(), Some(METERED));
    assert_eq!(stored.usages["f"], Default::default());
    goes_stale("its time is over", &tracked, "acme", mark).await;

    let without = ["--rename-command", "CLIENT", ""];
    let redis = Redis::start_with(&without).await;
    let tracked = start(&on(redis.port(), &[])).await;
    assert!(refusal(&tracked).starts_with("ERR unknown command"));
    is_fresh_by_time(&redis, &tracked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_taken_up_when_it_is_right() {
    let redis = Redis::start().await;
    redis.cmd(&["ACL", "SETUSER", "reads", "on", ">other", "~*", "+@all"]);
    let login = [("REDIS_USER", "reads"), ("REDIS_PASSWORD", "pass")];
    let tracked =
        Tracked::start(&on(redis.port(), &login), Keys::new("production"), FRESH).unwrap();
    until(
        "the reason is known",
        LIMIT,
        async || matches!(tracked.tracking(), Tracking::Away(why) if why.starts_with("WRONGPASS")),
    )
    .await;
    redis.cmd(&["ACL", "SETUSER", "reads", ">pass"]);
    read_fresh(&tracked, customer("acme")).await;
}

/// A value that is kept by all readers, and loaded by one at a time.
#[derive(Default)]
struct Kept {
    value: Option<(u64, Mark)>,
    /// The highest that was answered.
    answered: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn answers_never_go_back_while_a_writer_races() {
    const ROUNDS: u64 = 4_000;
    let redis = Arc::new(Redis::start().await);
    let tracked = start(&on(redis.port(), &[])).await;
    let (kept, stop) = (
        Arc::new(tokio::sync::Mutex::new(Kept::default())),
        Arc::new(AtomicBool::new(false)),
    );
    let from_copy = Arc::new(AtomicU64::new(0));
    let last = Arc::new(AtomicU64::new(0));
    let writer = {
        let (redis, stop, last) = (redis.clone(), stop.clone(), last.clone());
        tokio::task::spawn_blocking(move || {
            let mut conn = redis.conn();
            for number in 1..=ROUNDS {
                let number_text = number.to_string();
                redis::pipe()
                    .atomic()
                    .set("production:c_acme", METERED)
                    .set("production:c_acme#timestamp", &number_text)
                    .set("production:c_acme:f_f", &number_text)
                    .set("production:c_acme:f_f#timestamp", &number_text)
                    .query::<()>(&mut conn)
                    .unwrap();
                last.store(number, Ordering::SeqCst);
                // Now and then readers have the time to use what they keep.
                if number % 8 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            stop.store(true, Ordering::SeqCst);
        })
    };
    let readers = (0..4).map(|_| {
        let (tracked, kept, stop, from_copy) = (
            tracked.clone(),
            kept.clone(),
            stop.clone(),
            from_copy.clone(),
        );
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let mut kept = kept.lock().await;
                let copy = kept
                    .value
                    .filter(|(_, mark)| is_fresh(&tracked, "acme", *mark));
                let number = match copy {
                    Some((number, _)) => {
                        from_copy.fetch_add(1, Ordering::Relaxed);
                        number
                    }
                    None => {
                        // An error that heals: the values changed three times in a row.
                        let Ok((stored, mark)) = tracked.read(customer("acme")).await else {
                            continue;
                        };
                        let Some(at) = stored.entitlements.timestamp else {
                            continue;
                        };
                        let usage = stored.usages["f"].clone();
                        assert_eq!(usage.value, Some(at.clone()), "of one write");
                        assert_eq!(usage.timestamp, Some(at.clone()));
                        let number = at.parse().unwrap();
                        kept.value = Some((number, mark));
                        number
                    }
                };
                assert!(number >= kept.answered, "{number} after {}", kept.answered);
                kept.answered = number;
                drop(kept);
                tokio::task::yield_now().await;
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
    writer.await.unwrap();
    let (stored, _) = read_fresh(&tracked, customer("acme")).await;
    assert_eq!(stored.entitlements.timestamp, Some(ROUNDS.to_string()));
    let from_copy = from_copy.load(Ordering::SeqCst);
    assert!(
        from_copy > 100,
        "only {from_copy} answers came from the copy"
    );
    assert_eq!(tracked.losses(), 0);
}

/// When Redis has answered a later read, it has notified every change before that.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_known_before_the_answer_to_a_later_read() {
    let redis = Redis::start().await;
    let tracked = start(&on(redis.port(), &[])).await;
    let mut conn = redis.conn();
    for number in 0..2_000 {
        let (_, mark) = tracked.read(customer("acme")).await.unwrap();
        let mut set = redis::cmd("SET");
        set.arg("production:c_acme#timestamp").arg(number);
        let () = set.query(&mut conn).unwrap();
        tracked.read(customer("other")).await.unwrap();
        assert!(!is_fresh(&tracked, "acme", mark), "round {number}");
    }
}
