//! Connects to the primary, and has it tell of changes.

use std::time::Duration;

use fred::error::{Error, ErrorKind};
use fred::types::config::{CredentialProvider, TlsConnector};
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::read::values;
use super::wire::{Notification, Reply, Stream, Wire};
use crate::config::{Address, RedisConfig, Topology};
use crate::keys::{Keys, Owner};
use crate::store::StoreError;
use crate::store::connect::credentials::Credentials;
use crate::store::connect::{database, tls};

/// For all that a connection begins with: several round trips.
const SETUP_TIMEOUT: Duration = Duration::from_secs(2);
/// How the connection shows in `CLIENT LIST`.
const NAME: &[u8] = b"entitlement-sync-reads";

/// A connection that is ready to be read from.
pub struct Session {
    pub wire: Wire,
    /// It speaks RESP3, so that the server can tell of changes; if not, why.
    resp3: Result<(), StoreError>,
}

impl Session {
    /// Connects once, or says why it cannot.
    pub async fn connect(
        redis: &RedisConfig,
        at: Option<&Address>,
        notify: impl Fn(Notification) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let setup = async {
            let stream = stream(redis, at).await?;
            let wire = Wire::over(stream, notify);
            let resp3 = log_in(&wire, redis).await?;
            if let Some(number) = database(redis) {
                let number = number.to_string();
                wire.call(&[b"SELECT", number.as_bytes()]).await?;
            }
            Ok(Self { wire, resp3 })
        };
        timeout(SETUP_TIMEOUT, setup)
            .await
            .unwrap_or_else(|_| Err(StoreError::timeout()))
    }

    /// Has the server tell of every change of a customer's keys. `Ok(Err)`: it refuses, and why.
    pub async fn track(&self, keys: &Keys) -> Result<Result<(), StoreError>, StoreError> {
        if let Err(refused) = &self.resp3 {
            return Ok(Err(refused.clone()));
        }
        // What all keys of customers begin with.
        let prefix = keys.entitlements(Owner {
            customer: "",
            resource: None,
        });
        let prefix = prefix.as_bytes();
        let words: [&[u8]; 6] = [b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", prefix];
        match self.wire.call(&words).await {
            Ok(_) => Ok(Ok(())),
            Err(error) if is_refusal(&error) => Ok(Err(error)),
            Err(error) => Err(error),
        }
    }

    /// Fails unless the server answers, serves reads of our keys, and is a primary.
    pub async fn prove(&self, keys: &Keys) -> Result<(), StoreError> {
        // Of a customer that never is there: the node of a cluster must serve this key's slot.
        let absent = keys.entitlements(Owner {
            customer: "entitlement-sync-probe",
            resource: None,
        });
        let absent = [absent];
        let ((), _) = tokio::try_join!(self.check_role(), values(&self.wire, &absent))?;
        Ok(())
    }

    /// A replica would tell of changes late or never.
    async fn check_role(&self) -> Result<(), StoreError> {
        if self.resp3.is_err() {
            return Ok(());
        }
        // Without arguments it only describes the server.
        let Reply::List(parts) = self.wire.call(&[b"HELLO"]).await? else {
            return Ok(());
        };
        let role = parts
            .chunks_exact(2)
            .find(|pair| matches!(&pair[0], Reply::Text(name) if name == "role"));
        match role.map(|pair| &pair[1]) {
            Some(Reply::Text(role)) if role == "replica" || role == "slave" => {
                Err(StoreError::of_redis("READONLY the server is a replica"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether the server does not have a command or does not permit it, rather than being unable now.
fn is_refusal(error: &StoreError) -> bool {
    let text = error.to_string();
    ["ERR", "NOPROTO", "NOPERM"]
        .iter()
        .any(|code| text.starts_with(code))
}

/// `Ok(Err)`: only RESP2 is spoken, and why.
async fn log_in(wire: &Wire, redis: &RedisConfig) -> Result<Result<(), StoreError>, StoreError> {
    let (user, password) = match Credentials::new(&redis.login) {
        Some(credentials) => credentials.fetch(None).await?,
        None => (None, None),
    };
    let user = user.as_deref().map(str::as_bytes);
    let password = password.as_deref().map(str::as_bytes);
    let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
    if let Some(password) = password {
        hello.extend([&b"AUTH"[..], user.unwrap_or(b"default"), password]);
    }
    hello.extend([&b"SETNAME"[..], NAME]);
    let refused = match wire.call(&hello).await {
        Ok(_) => return Ok(Ok(())),
        Err(error) if is_refusal(&error) => error,
        Err(error) => return Err(error),
    };
    wire.set_resp2();
    let mut auth: Vec<&[u8]> = vec![b"AUTH"];
    auth.extend(user);
    auth.extend(password);
    if password.is_some() {
        wire.call(&auth).await?;
    }
    Ok(Err(refused))
}

async fn stream(redis: &RedisConfig, at: Option<&Address>) -> Result<Box<dyn Stream>, StoreError> {
    let address = match (at, &redis.topology) {
        (Some(address), _) | (None, Topology::Standalone(address)) => address,
        (None, Topology::Unix(path)) => {
            let stream = UnixStream::connect(path).await.map_err(Error::from)?;
            return Ok(Box::new(stream));
        }
        (None, _) => return Err(StoreError::looking()),
    };
    let connect = TcpStream::connect((address.host.as_str(), address.port));
    let stream = connect.await.map_err(Error::from)?;
    stream.set_nodelay(true).map_err(Error::from)?;
    let Some(config) = &redis.tls else {
        return Ok(Box::new(stream));
    };
    // Files are read again, so that rotated certificates need no restart.
    let connector = tls::config(config).map_err(|error| StoreError::setup(&error))?;
    let TlsConnector::Rustls(connector) = connector.connector;
    let name = config.server_name.as_ref().unwrap_or(&address.host);
    let name = ServerName::try_from(name.clone())
        .map_err(|error| Error::new(ErrorKind::Tls, error.to_string()))?;
    let stream = connector.connect(name, stream).await.map_err(Error::from)?;
    Ok(Box::new(stream))
}
