//! What gives out AWS credentials: an STS, and the agent that pods and tasks ask. Both remember what they were asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::http::{self, Outcome, Received, Server};

/// Credentials that end after that long; named, so that a signature tells which they are.
fn expiry(lifetime: Duration) -> String {
    (OffsetDateTime::now_utc() + lifetime)
        .format(&Rfc3339)
        .unwrap()
}

pub struct Sts {
    server: Server,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    received: Vec<Received>,
    /// Code and message of a refusal.
    refusal: Option<(&'static str, &'static str)>,
    /// Of the credentials given next; then an hour.
    lifetimes: Vec<Duration>,
    given: usize,
}

impl Sts {
    pub async fn start() -> Sts {
        let state = Arc::new(Mutex::new(State::default()));
        let server = Server::start({
            let state = state.clone();
            move |request| {
                let answer = state.lock().unwrap().answer(request);
                async move { answer }
            }
        })
        .await;
        Sts { server, state }
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    pub fn port(&self) -> u16 {
        self.server.port
    }

    pub fn refuse(&self, code: &'static str, message: &'static str) {
        self.state.lock().unwrap().refusal = Some((code, message));
    }

    /// How long the credentials given next last.
    pub fn lifetimes(&self, lifetimes: &[Duration]) {
        self.state.lock().unwrap().lifetimes = lifetimes.to_vec();
    }

    pub fn requests(&self) -> Vec<Received> {
        self.state.lock().unwrap().received.clone()
    }

    /// The fields of each request.
    pub fn forms(&self) -> Vec<BTreeMap<String, String>> {
        let requests = self.requests();
        requests.iter().map(form).collect()
    }
}

fn form(request: &Received) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(&request.body)
        .into_owned()
        .collect()
}

impl State {
    fn answer(&mut self, request: Received) -> Outcome {
        let xml = [("content-type", "text/xml")];
        let form = form(&request);
        self.received.push(request);
        if let Some((code, message)) = self.refusal {
            let body = format!(
                "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
            );
            return http::answer(403, &xml, body);
        }
        let action = &form["Action"];
        let result = if action == "GetCallerIdentity" {
            "<Arn>arn:aws:sts::123456789012:assumed-role/sync/here</Arn><UserId>A</UserId><Account>123456789012</Account>".to_owned()
        } else {
            self.given += 1;
            let given = self.given;
            let lifetime = match self.lifetimes.is_empty() {
                true => Duration::from_secs(3600),
                false => self.lifetimes.remove(0),
            };
            format!(
                "<Credentials><AccessKeyId>ASIASTS{given}</AccessKeyId><SecretAccessKey>canary-sts-secret</SecretAccessKey>\
                 <SessionToken>token-sts-{given}</SessionToken><Expiration>{}</Expiration></Credentials>\
                 <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/sync/x</Arn><AssumedRoleId>A:x</AssumedRoleId></AssumedRoleUser>",
                expiry(lifetime)
            )
        };
        let body = format!(
            "<{action}Response><{action}Result>{result}</{action}Result></{action}Response>"
        );
        http::answer(200, &xml, body)
    }
}

/// What stands behind `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
pub struct Agent {
    server: Server,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Agent {
    pub async fn start() -> Agent {
        let received = Arc::new(Mutex::new(Vec::new()));
        let server = Server::start({
            let received = received.clone();
            move |request| {
                received.lock().unwrap().push(request);
                async move {
                    let body = serde_json::json!({
                        "AccessKeyId": "ASIAPOD", "SecretAccessKey": "canary-pod-secret",
                        "Token": "token-pod", "Expiration": expiry(Duration::from_secs(3600)),
                    });
                    http::answer(
                        200,
                        &[("content-type", "application/json")],
                        body.to_string(),
                    )
                }
            }
        })
        .await;
        Agent { server, received }
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    pub fn requests(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}
