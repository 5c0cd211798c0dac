//! Reports our `error!` lines to Sentry, without their values.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use sentry::protocol::{Event, Level};
use sentry::transports::UreqHttpTransportOptions;
use sentry::{Client, ClientOptions, Transport, TransportFactory, TransportOptions};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::Redactor;

/// The target of error reports, once it is known. Clones share it.
#[derive(Clone)]
pub struct Reports {
    client: Arc<RwLock<Option<Arc<Client>>>>,
    last: Arc<Mutex<HashMap<String, Instant>>>,
    redactor: Arc<Redactor>,
}

/// The time in which an error is reported only once.
const REPEAT_PAUSE: Duration = Duration::from_secs(60);
/// Maximum errors remembered for that; all are static texts of ours.
const MAX_REMEMBERED: usize = 256;

impl Reports {
    pub fn new(redactor: Arc<Redactor>) -> Self {
        Self {
            client: Arc::default(),
            last: Arc::default(),
            redactor,
        }
    }

    /// Starts to report; returns the host, or `None` where the DSN is invalid.
    pub fn send_to(&self, dsn: &SecretString) -> Option<String> {
        let dsn: sentry::types::Dsn = dsn.expose_secret().parse().ok()?;
        let host = dsn.host().to_owned();
        let mut options = ClientOptions::default();
        options.dsn = Some(dsn);
        options.release = Some(concat!("entitlement-sync@", env!("CARGO_PKG_VERSION")).into());
        options.transport = Some(Arc::new(Http));
        options.send_default_pii = false;
        // A host name is an id too, and Sentry would add it.
        options.server_name = Some("entitlement-sync".into());
        let client = Arc::new(Client::with_options(options));
        *self.client.write().unwrap_or_else(|lock| lock.into_inner()) = Some(client);
        Some(host)
    }

    /// Blocks until all reports are sent, for at most `timeout`.
    pub fn flush(&self, timeout: Duration) {
        if let Some(client) = self.client() {
            client.close(Some(timeout));
        }
    }

    /// The layer that turns our `error!` lines into reports.
    pub fn layer<S: tracing::Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        ReportLayer(self.clone())
    }

    fn client(&self) -> Option<Arc<Client>> {
        self.client
            .read()
            .unwrap_or_else(|lock| lock.into_inner())
            .clone()
    }

    fn is_due(&self, message: &str) -> bool {
        let mut last = self.last.lock().unwrap_or_else(|lock| lock.into_inner());
        let now = Instant::now();
        match last.get(message) {
            Some(before) if now.duration_since(*before) < REPEAT_PAUSE => false,
            None if last.len() >= MAX_REMEMBERED => false,
            _ => {
                last.insert(message.to_owned(), now);
                true
            }
        }
    }
}

struct Http;

impl TransportFactory for Http {
    fn create_transport_with_options(&self, options: TransportOptions) -> Arc<dyn Transport> {
        let transport = UreqHttpTransportOptions::from(options)
            .with_agent(crate::http_agent::with_timeout(crate::http_agent::TIMEOUT));
        Arc::new(transport.build())
    }
}

struct ReportLayer(Reports);

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for ReportLayer {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() != tracing::Level::ERROR
            || !metadata.target().starts_with("entitlement_sync")
        {
            return;
        }
        let Some(client) = self.0.client() else {
            return;
        };
        let mut fields = ReportFields::default();
        event.record(&mut fields);
        if !self.0.is_due(&fields.message) {
            return;
        }
        let mut report = Event {
            level: Level::Error,
            logger: Some(metadata.target().to_owned()),
            message: Some(self.0.redactor.redact(&fields.message).into_owned()),
            fingerprint: vec![
                metadata.target().to_owned().into(),
                fields.message.clone().into(),
            ]
            .into(),
            ..Event::default()
        };
        // A bounded set of our words; any other field may contain an id.
        for (name, value) in [("kind", fields.kind), ("location", fields.location)] {
            if let Some(value) = value {
                report
                    .tags
                    .insert(name.into(), self.0.redactor.redact(&value).into_owned());
            }
        }
        client.capture_event(report, None);
    }
}

#[derive(Default)]
struct ReportFields {
    message: String,
    kind: Option<String>,
    location: Option<String>,
}

impl Visit for ReportFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            "kind" => self.kind = Some(value.to_owned()),
            "location" => self.location = Some(value.to_owned()),
            _ => {}
        }
    }
}
