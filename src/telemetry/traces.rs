//! Sends a span for each batch by OTLP, linked to the spans of the producers of its messages.
//!
//! Names follow the OpenTelemetry conventions for messaging. Spans exist only if an endpoint is
//! set and the binary has the feature `otlp`.

#[cfg(feature = "otlp")]
pub use sending::{BatchSpan, Traces};
#[cfg(not(feature = "otlp"))]
pub use silent::{BatchSpan, Traces};

#[cfg(not(feature = "otlp"))]
mod silent {
    /// Disabled traces.
    #[derive(Debug, Clone, Default)]
    pub struct Traces;

    #[derive(Debug)]
    pub struct BatchSpan;

    impl Traces {
        pub fn start(
            _: Option<&crate::config::TracesConfig>,
            _: &url::Url,
        ) -> anyhow::Result<Self> {
            Ok(Self)
        }

        pub fn batch<'a>(&self, _: usize, _: impl Iterator<Item = &'a str>) -> BatchSpan {
            BatchSpan
        }

        pub fn flush(&self) {}
    }
}

#[cfg(feature = "otlp")]
mod sending {
    use std::sync::Arc;

    use anyhow::Context as _;
    use bytes::Bytes;
    use opentelemetry::trace::{
        Link, SpanContext, SpanId, SpanKind, TraceFlags, TraceId, TraceState, Tracer,
        TracerProvider,
    };
    use opentelemetry::{Context, KeyValue};
    use opentelemetry_http::{HttpClient, HttpError, Request, Response};
    use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};
    use url::Url;

    use crate::config::TracesConfig;

    /// The target of spans; clones share it. `None`: no spans are sent.
    #[derive(Debug, Clone, Default)]
    pub struct Traces(Option<Arc<Sender>>);

    #[derive(Debug)]
    struct Sender {
        provider: SdkTracerProvider,
        tracer: SdkTracer,
        attributes: Vec<KeyValue>,
    }

    /// The span of one batch; it ends when dropped.
    #[derive(Debug)]
    pub struct BatchSpan {
        _span: Option<Span>,
    }

    impl Traces {
        /// Starts to send traces about `queue`, if they are configured. Headers, attributes and the sampler
        /// are read by the SDK.
        pub fn start(config: Option<&TracesConfig>, queue: &Url) -> anyhow::Result<Self> {
            let Some(config) = config else {
                return Ok(Self(None));
            };
            let mut resource = Resource::builder();
            if !config.is_named {
                resource = resource.with_service_name("entitlement-sync");
            }
            let exporter = SpanExporter::builder()
                .with_http()
                .with_protocol(Protocol::HttpBinary)
                .with_http_client(Http(crate::http_agent::with_timeout(config.timeout)))
                .with_endpoint(config.endpoint.as_str())
                .with_timeout(config.timeout)
                .build()
                .context("cannot send traces")?;
            let provider = SdkTracerProvider::builder()
                .with_batch_exporter(exporter)
                .with_resource(
                    resource
                        .with_attributes([KeyValue::new(
                            "service.version",
                            env!("CARGO_PKG_VERSION"),
                        )])
                        .build(),
                )
                .build();
            let name = queue
                .path()
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_owned();
            Ok(Self(Some(Arc::new(Sender {
                tracer: provider.tracer("entitlement-sync"),
                provider,
                attributes: vec![
                    KeyValue::new("messaging.system", "aws_sqs"),
                    KeyValue::new("messaging.operation.name", "process"),
                    KeyValue::new("messaging.operation.type", "process"),
                    KeyValue::new("messaging.destination.name", name),
                ],
            }))))
        }

        /// Starts the span of a batch of messages with these `AWSTraceHeader`s.
        pub fn batch<'a>(
            &self,
            messages: usize,
            headers: impl Iterator<Item = &'a str>,
        ) -> BatchSpan {
            let span = self.0.as_ref().map(|sender| {
                let mut attributes = sender.attributes.clone();
                let count = i64::try_from(messages).unwrap_or(i64::MAX);
                attributes.push(KeyValue::new("messaging.batch.message_count", count));
                let links = headers
                    .filter_map(producer)
                    .map(|producer| Link::new(producer, Vec::new(), 0));
                sender
                    .tracer
                    .span_builder("process")
                    .with_kind(SpanKind::Consumer)
                    .with_attributes(attributes)
                    .with_links(links.collect())
                    .start_with_context(&sender.tracer, &Context::new())
            });
            BatchSpan { _span: span }
        }

        /// Sends the waiting spans; blocks until they are sent or failed.
        pub fn flush(&self) {
            if let Some(sender) = &self.0
                && let Err(error) = sender.provider.shutdown()
            {
                tracing::warn!(%error, "cannot send the last traces");
            }
        }
    }

    /// Parses the header of X-Ray: `Root=1-<8 hex>-<24 hex>;Parent=<16 hex>;Sampled=1`.
    fn producer(header: &str) -> Option<SpanContext> {
        let field = |name: &str| {
            header
                .split(';')
                .find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let trace_id = field("Root")?.strip_prefix("1-")?.replace('-', "");
        let flags = match field("Sampled") {
            Some("1") => TraceFlags::SAMPLED,
            _ => TraceFlags::default(),
        };
        let context = SpanContext::new(
            TraceId::from_hex(&trace_id).ok()?,
            SpanId::from_hex(field("Parent")?).ok()?,
            flags,
            true,
            TraceState::default(),
        );
        context.is_valid().then_some(context)
    }

    /// The HTTP client that the rest of the process uses; the exporter has a thread of its own.
    #[derive(Debug)]
    struct Http(ureq::Agent);

    #[async_trait::async_trait]
    impl HttpClient for Http {
        async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
            let (parts, body) = request.into_parts();
            let mut call = self.0.post(parts.uri.to_string());
            for (name, value) in &parts.headers {
                call = call.header(name, value);
            }
            let mut answer = call.send(&body[..])?;
            let text = answer.body_mut().read_to_vec()?;
            Ok(Response::builder()
                .status(answer.status())
                .body(text.into())?)
        }
    }

    #[cfg(test)]
    mod tests {

        #[test]
        fn the_producer_is_read_from_the_header_of_x_ray() {
            let header =
                "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
            let producer = super::producer(header).unwrap();
            assert_eq!(
                producer.trace_id().to_string(),
                "5759e988bd862e3fe1be46a994272793"
            );
            assert_eq!(producer.span_id().to_string(), "53995c3f42cd8ad8");
            assert!(producer.is_sampled());
            for bad in [
                "",
                "Root=1-x",
                "Root=1-5759e988-bd862e3fe1be46a994272793",
                "Root=1-0-0;Parent=0",
            ] {
                assert!(super::producer(bad).is_none(), "{bad}");
            }
        }
    }
}
