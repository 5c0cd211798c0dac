//! Asks a running process in memory mode for the messages that it keeps, by its routes under `/admin`.

use entitlement_sync::config::Config;
use entitlement_sync::memory;
use entitlement_sync::server::{self, Reply};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::letter::Letter;
use crate::commands::{BAD_CONFIGURATION, FAILED, Failure, NO_PERMISSION, UNAVAILABLE};

/// The process that answers on `PORT` of this machine.
pub struct Process {
    port: u16,
    token: SecretString,
    /// The process gives all letters at once.
    is_read: bool,
}

#[derive(Deserialize)]
struct Answer {
    letters: Vec<memory::Letter>,
}

const PATH: &str = "/admin/dead-letters";
const NO_TOKEN: &str = "ADMIN_TOKEN is not set: with STORE=memory the running process keeps the dead letters, and gives them only to the token that it was started with";
const REJECTED: &str =
    "the process rejects ADMIN_TOKEN: set the token that the process was started with";
const NO_ROUTE: &str = "the process has no routes under /admin: start it with ADMIN_TOKEN";

impl Process {
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let Some(token) = &config.admin_token else {
            return Err(Failure::with(BAD_CONFIGURATION, NO_TOKEN));
        };
        Ok(Self {
            port: config.port,
            token: token.clone(),
            is_read: false,
        })
    }

    /// Returns all letters, the first time.
    pub fn next(&mut self) -> anyhow::Result<Vec<Letter>> {
        if std::mem::replace(&mut self.is_read, true) {
            return Ok(Vec::new());
        }
        let reply = self.ask("GET", PATH)?;
        match serde_json::from_str(&reply.body) {
            Ok(Answer { letters }) if reply.status == 200 => {
                Ok(letters.into_iter().map(Letter::from).collect())
            }
            // It may contain bodies, so it is not shown.
            _ if reply.status == 200 => Err(Failure::with(
                FAILED,
                format!("{PATH} gives no dead letters: run the same version as the process"),
            )),
            _ => Err(unexpected(&reply)),
        }
    }

    /// Deletes a letter. One that is already gone is not an error.
    pub fn delete(&self, letter: &Letter) -> anyhow::Result<()> {
        let reply = self.ask("DELETE", &format!("{PATH}/{}", letter.id))?;
        match reply.status {
            200 | 404 => Ok(()),
            _ => Err(unexpected(&reply)),
        }
    }

    fn ask(&self, method: &str, path: &str) -> anyhow::Result<Reply> {
        let token = Some(self.token.expose_secret());
        server::request(self.port, method, path, token).map_err(|error| {
            let text =
                format!("{error:#}: run the command where the process runs, and set PORT as there");
            Failure::with(UNAVAILABLE, text)
        })
    }
}

fn unexpected(reply: &Reply) -> anyhow::Error {
    match reply.status {
        401 => Failure::with(NO_PERMISSION, REJECTED),
        404 => Failure::with(BAD_CONFIGURATION, NO_ROUTE),
        409 => Failure::with(
            BAD_CONFIGURATION,
            "the process holds its state in Redis: unset STORE here",
        ),
        503 => Failure::with(
            UNAVAILABLE,
            "the process cannot write its journal, so a restart may bring the dead letter back: see /readyz?verbose of the process, and try again",
        ),
        status => Failure::with(FAILED, format!("{PATH} answers {status}")),
    }
}
