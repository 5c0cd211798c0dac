//! Provides the user and password of each new connection.

use std::time::Duration;

use fred::error::{Error, ErrorKind};
use fred::types::config::{CredentialProvider, Server};

use super::iam::Iam;
use crate::config::{Login, Password};

/// Reads files again and makes new tokens for each connection, so that a rotated secret needs no restart.
#[derive(Debug)]
pub struct Credentials {
    login: Login,
    iam: Option<Iam>,
}

impl Credentials {
    /// `None` where Redis needs no login.
    pub fn new(login: &Login) -> Option<Self> {
        let iam = match login.password.as_ref()? {
            Password::Iam(config) => {
                let user = login.username.clone().unwrap_or_default();
                Some(Iam::new(config.clone(), user))
            }
            _ => None,
        };
        Some(Self {
            login: login.clone(),
            iam,
        })
    }
}

#[async_trait::async_trait]
impl CredentialProvider for Credentials {
    async fn fetch(&self, _: Option<&Server>) -> Result<(Option<String>, Option<String>), Error> {
        let refused = |problem: String| Error::new(ErrorKind::Auth, problem);
        if let Some(iam) = &self.iam {
            let token = iam.token().await.map_err(refused)?;
            return Ok((self.login.username.clone(), Some(token)));
        }
        let pair = self.login.current().map_err(refused)?;
        Ok(pair.unwrap_or_default())
    }

    /// ElastiCache closes connections 12 hours after their last login.
    fn refresh_interval(&self) -> Option<Duration> {
        const LOGIN_INTERVAL: Duration = Duration::from_secs(3600);
        self.iam.as_ref().map(|_| LOGIN_INTERVAL)
    }
}
