//! Runs a Lua script by its digest, or by its text where the server does not support digests.

use std::sync::{Arc, Mutex};

use bytes_utils::Str;
use fred::prelude::*;
use fred::types::{FromValue, Key, Value};
use tokio::sync::broadcast::Receiver;

use super::StoreError;

/// A script, and whether the connection accepts digests. Clones share both.
#[derive(Clone)]
pub(super) struct Script(Arc<Inner>);

struct Inner {
    source: Str,
    sha1: Str,
    without_digests: Mutex<Option<Refused>>,
}

/// A connection that refused `EVALSHA`.
struct Refused {
    client: String,
    /// Forgets the refusal: a new connection may lead to a server that accepts digests.
    reconnects: Receiver<Server>,
}

impl Script {
    pub fn new(source: &'static str) -> Self {
        Self(Arc::new(Inner {
            source: Str::from_static(source),
            sha1: fred::util::sha1_hash(source).into(),
            without_digests: Mutex::default(),
        }))
    }

    /// Runs the script. `words` returns keys and arguments; it is called twice where the digest is rejected.
    pub async fn run<R: FromValue>(
        &self,
        client: &Client,
        words: impl Fn() -> (Vec<Key>, Vec<Value>),
    ) -> Result<R, StoreError> {
        if !self.is_refused_by(client) {
            let (keys, arguments) = words();
            let answer = client.evalsha(self.0.sha1.clone(), keys, arguments).await;
            match answer {
                Ok(answer) => return Ok(answer),
                // Redis forgets scripts after a restart, a failover or SCRIPT FLUSH; another node of a
                // cluster never knew them.
                Err(error) if error.details().starts_with("NOSCRIPT") => {}
                Err(error) if refuses(error.details(), "evalsha") => self.remember(client),
                Err(error) => return Err(error.into()),
            }
        }
        let (keys, arguments) = words();
        let answer = client.eval(self.0.source.clone(), keys, arguments).await;
        answer.map_err(|error: Error| match refuses(error.details(), "eval") {
            true => StoreError::without_scripts(error.details().starts_with("NOPERM")),
            false => error.into(),
        })
    }

    fn is_refused_by(&self, client: &Client) -> bool {
        let mut known = self
            .0
            .without_digests
            .lock()
            .unwrap_or_else(|it| it.into_inner());
        let holds = known.as_mut().is_some_and(|refused| {
            refused.client == client.id() && refused.reconnects.try_recv().is_err()
        });
        if !holds {
            *known = None;
        }
        holds
    }

    fn remember(&self, client: &Client) {
        let refused = Refused {
            client: client.id().to_owned(),
            reconnects: client.reconnect_rx(),
        };
        *self
            .0
            .without_digests
            .lock()
            .unwrap_or_else(|it| it.into_inner()) = Some(refused);
    }
}

/// Returns whether an error means that a command is unavailable: unknown, renamed, not supported by a proxy, or denied
/// to this user.
fn refuses(text: &str, command: &str) -> bool {
    let text = text.to_ascii_lowercase();
    // An error within a script does not refuse the script: in Redis 6.2 such errors start with ERR too.
    if ["user_script", "from script", "from lua script"]
        .iter()
        .any(|sign| text.contains(sign))
    {
        return false;
    }
    // Redis quotes the command; a proxy may not name it.
    let named = || text.contains(&format!("'{command}'")) || text.contains(&format!("`{command}`"));
    let unknown = [
        "unknown command",
        "unknown redis command",
        "unsupported command",
        "command not supported",
        "command is not supported",
        "not allowed command",
        "command not allowed",
        "is not supported",
        "command disabled",
        // Garnet without --lua, and older servers of Alibaba Cloud.
        "scripting support disabled",
        "not support for normal user",
    ];
    // "command not allowed when used memory > 'maxmemory'" is a full server.
    let is_unknown = text.starts_with("err ") && unknown.iter().any(|sign| text.contains(sign));
    (text.starts_with("noperm") && named()) || is_unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_command_is_told_from_refused_keys_and_states() {
        for (text, refused) in [
            (
                "ERR unknown command 'EVALSHA', with args beginning with: 'x' ",
                true,
            ),
            (
                "ERR unknown command `evalsha`, with args beginning with: ",
                true,
            ),
            ("ERR unsupported command", true),
            ("ERR This instance has Lua scripting support disabled", true),
            ("ERR command eval not support for normal user", true),
            ("ERR unknown redis command EVALSHA", true),
            (
                "NOPERM User sync has no permissions to run the 'evalsha' command",
                true,
            ),
            (
                "NOPERM this user has no permissions to run the 'evalsha' command or its subcommand",
                true,
            ),
            (
                "NOPERM User sync has no permissions to access the 'production:c_a' key",
                false,
            ),
            (
                "NOPERM User sync has no permissions to run the 'eval' command",
                false,
            ),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                false,
            ),
            (
                "ERR Error running script (call to f_5b1c): @user_script:1: @user_script: 1: -OOM command not allowed when used memory > 'maxmemory'. ",
                false,
            ),
            (
                "ERR Error running script (call to f_5b1c): @user_script:1: @user_script: 1: Unknown Redis command called from Lua script",
                false,
            ),
            (
                "ERR Unknown Redis command called from script script: 5b1c, on @user_script:1.",
                false,
            ),
            ("NOSCRIPT No matching script. Please use EVAL.", false),
            ("BUSY Redis is busy running a script.", false),
            (
                "READONLY You can't write against a read only replica.",
                false,
            ),
        ] {
            assert_eq!(refuses(text, "evalsha"), refused, "{text}");
        }
    }
}
