//! Reads users, passwords and IAM settings for Redis and its sentinels.

use secrecy::{ExposeSecret, SecretString};

use super::Topology;
use super::url::{RedisUrl, RedisUrlSource};
use crate::config::StaticCredentials;
use crate::config::read::{Reader, text};
use crate::config::secret_file::{self, SecretFile};
use crate::config::variables::Raw;

/// A user and a password. Neither is set where Redis needs none.
#[derive(Debug, Clone, Default)]
pub struct Login {
    pub username: Option<String>,
    pub password: Option<Password>,
}

#[derive(Debug, Clone)]
pub enum Password {
    Value(SecretString),
    /// Read again for each connection.
    File(SecretFile),
    /// A file that holds `REDIS_URL`: user and password are read again for each connection.
    Url(SecretFile),
    Iam(IamConfig),
}

/// An IAM token instead of a password.
#[derive(Debug, Clone)]
pub struct IamConfig {
    pub cache_name: String,
    pub serverless: bool,
    pub region: String,
    /// `None`: the AWS default chain.
    pub keys: Option<StaticCredentials>,
}

/// A user and a password to log in with.
pub type Pair = (Option<String>, Option<String>);

impl Login {
    /// Returns the current login and reads its files again, or returns the error of a file. `None` where a token has to
    /// be made.
    pub fn current(&self) -> Result<Option<Pair>, String> {
        let shown = |secret: &SecretString| secret.expose_secret().to_owned();
        let password = match &self.password {
            None => None,
            Some(Password::Value(secret)) => Some(shown(secret)),
            Some(Password::File(file)) => Some(shown(&file.read()?)),
            Some(Password::Url(file)) => {
                let url = RedisUrl::parse(file.read()?.expose_secret())
                    .map_err(|problem| format!("{} holds what {problem}", file.variable))?;
                let password = url.password.as_ref().map(shown);
                return Ok(Some((
                    url.username.or_else(|| self.username.clone()),
                    password,
                )));
            }
            Some(Password::Iam(_)) => return Ok(None),
        };
        Ok(Some((self.username.clone(), password)))
    }
}

pub fn read(
    read: &mut Reader,
    raw: &mut Raw,
    url: Option<&RedisUrlSource>,
    topology: &Topology,
    tls: bool,
) -> Login {
    let username = read.either(
        ("REDIS_USER", raw.redis_user.take()),
        ("REDIS_USERNAME", raw.redis_username.take()),
    );
    let own = secret_file::given(
        read,
        ("REDIS_PASSWORD", raw.redis_password.take()),
        ("REDIS_PASSWORD_FILE", raw.redis_password_file.take()),
    );
    let has_password = own.is_some();
    let of_url = url.filter(|url| url.parsed.password.is_some());
    if let (Some(user), Some(of_url)) =
        (&username, url.and_then(|url| url.parsed.username.as_ref()))
        && user != of_url
    {
        read.problem(
            "REDIS_USER",
            "is not the user of REDIS_URL: set one of them",
        );
    }
    if has_password && of_url.is_some() {
        read.problem(
            "REDIS_PASSWORD",
            "is set, and REDIS_URL holds a password: set one of them",
        );
    }
    let username = username.or_else(|| url.and_then(|url| url.parsed.username.clone()));
    let iam = iam(read, raw);
    if let Some(iam) = iam {
        let trouble = if has_password || of_url.is_some() {
            Some("a password is set as well: unset it")
        } else if username.is_none() {
            Some("REDIS_USER is not set: set the name of the IAM user")
        } else if !tls {
            Some("REDIS_TLS is not 1: a token must not travel in the clear, so set it")
        } else if matches!(topology, Topology::Sentinel { .. } | Topology::Unix(_)) {
            Some("Redis is reached by sentinels or a socket, which ElastiCache does not have")
        } else {
            None
        };
        if let Some(trouble) = trouble {
            read.problem("REDIS_IAM_AUTH", format!("is 1, but {trouble}"));
        }
        return Login {
            username,
            password: Some(Password::Iam(iam)),
        };
    }
    let password = match own {
        Some(given) => Some(password(given)),
        None => of_url.and_then(|url| match &url.file {
            Some(file) => Some(Password::Url(file.clone())),
            None => url.parsed.password.clone().map(Password::Value),
        }),
    };
    if username.is_some() && password.is_none() {
        read.problem(
            "REDIS_PASSWORD",
            "is not set, but REDIS_USER is: set both, or neither",
        );
    }
    Login { username, password }
}

fn password(given: secret_file::SecretSource) -> Password {
    match given.file {
        Some(file) => Password::File(file),
        None => Password::Value(given.secret),
    }
}

fn iam(read: &mut Reader, raw: &mut Raw) -> Option<IamConfig> {
    let is_on = read.boolean("REDIS_IAM_AUTH", raw.redis_iam_auth.take(), false);
    let cache_name = text(raw.redis_iam_cache_name.take());
    let serverless = read.boolean(
        "REDIS_IAM_SERVERLESS",
        raw.redis_iam_serverless.take(),
        false,
    );
    if !is_on {
        if cache_name.is_some() {
            read.problem(
                "REDIS_IAM_CACHE_NAME",
                "is set, but REDIS_IAM_AUTH is not 1: set both, or neither",
            );
        }
        return None;
    }
    if cache_name.is_none() {
        read.problem(
            "REDIS_IAM_CACHE_NAME",
            "is not set, but REDIS_IAM_AUTH is: set the name of the cache",
        );
    }
    let region = text(raw.aws_region.clone()).unwrap_or_default();
    if region.is_empty() {
        read.problem("AWS_REGION", "is not set, but REDIS_IAM_AUTH needs it");
    }
    Some(IamConfig {
        // ElastiCache stores the name in lower case.
        cache_name: cache_name.unwrap_or_default().to_lowercase(),
        serverless,
        region,
        keys: keys(raw),
    })
}

/// Reads static keys; an incomplete pair is reported where the queue's credentials are read.
fn keys(raw: &Raw) -> Option<StaticCredentials> {
    let secret = |value: &Option<String>| text(value.clone()).map(SecretString::from);
    Some(StaticCredentials {
        access_key_id: secret(&raw.aws_access_key_id)?,
        secret_access_key: secret(&raw.aws_secret_access_key)?,
        session_token: secret(&raw.aws_session_token),
    })
}

/// Reads the login for the sentinels, which have their own passwords or none.
pub fn of_sentinels(read: &mut Reader, raw: &mut Raw, url: Option<&RedisUrlSource>) -> Login {
    let own = secret_file::given(
        read,
        (
            "REDIS_SENTINEL_PASSWORD",
            raw.redis_sentinel_password.take(),
        ),
        (
            "REDIS_SENTINEL_PASSWORD_FILE",
            raw.redis_sentinel_password_file.take(),
        ),
    );
    let of_url = url.and_then(|url| url.parsed.sentinel_password.clone());
    if own.is_some() && of_url.is_some() {
        read.problem(
            "REDIS_SENTINEL_PASSWORD",
            "is set, and REDIS_URL holds one: set one of them",
        );
    }
    let username = text(raw.redis_sentinel_user.take())
        .or_else(|| url.and_then(|url| url.parsed.sentinel_username.clone()));
    let password = own.map(password).or(of_url.map(Password::Value));
    if username.is_some() && password.is_none() {
        read.problem(
            "REDIS_SENTINEL_PASSWORD",
            "is not set, but REDIS_SENTINEL_USER is: set both, or neither",
        );
    }
    Login { username, password }
}

/// Reports settings of sentinels where no sentinels are configured.
pub fn no_sentinels(read: &mut Reader, raw: &mut Raw, master: Option<&str>) {
    let is_set = |value: &Option<String>| value.as_deref().is_some_and(|it| !it.trim().is_empty());
    for (name, set) in [
        ("REDIS_SENTINEL_MASTER", master.is_some()),
        ("REDIS_SENTINEL_USER", is_set(&raw.redis_sentinel_user)),
        (
            "REDIS_SENTINEL_PASSWORD",
            is_set(&raw.redis_sentinel_password),
        ),
        (
            "REDIS_SENTINEL_PASSWORD_FILE",
            is_set(&raw.redis_sentinel_password_file),
        ),
    ] {
        if set {
            read.problem(
                name,
                "is set, but REDIS_SENTINEL_HOSTS is not: set both, or neither",
            );
        }
    }
}
