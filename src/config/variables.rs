//! Lists every variable: its name, default, example and meaning. The environment is read through
//! this table, and `--help`, `.env.example` and the README's table are printed from it.

use serde::Deserialize;

/// A variable as the README documents it.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    pub name: &'static str,
    pub need: Need,
    pub secret: bool,
    pub example: &'static str,
    pub about: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Required,
    Default(&'static str),
    Optional,
    /// Another name of the variable given.
    Alias(&'static str),
}

macro_rules! variables {
    ($($field:ident $name:literal $need:ident$(($default:literal))? $secrecy:ident $example:literal $about:literal;)+) => {
        /// The unchecked environment: every value is a string.
        #[derive(Default, Deserialize)]
        pub struct Raw {
            $(pub $field: Option<String>,)+
        }

        /// All variables, in the order of the README.
        pub const VARIABLES: &[Variable] = &[
            $(Variable {
                name: $name,
                need: Need::$need$(($default))?,
                secret: variables!(@$secrecy),
                example: $example,
                about: $about,
            },)+
        ];
    };
    (@secret) => { true };
    (@plain) => { false };
}

variables! {
    aws_region "AWS_REGION" Required plain "us-east-1"
        "Region of the queue.";
    queue_url "QUEUE_URL" Required plain "https://sqs.us-east-1.amazonaws.com/123456789012/entitlements"
        "URL of the SQS queue, standard or FIFO.";
    server_api_key "SERVER_API_KEY" Required secret "server-key"
        "Full-access server API key, for the Edge API.";
    server_api_key_file "SERVER_API_KEY_FILE" Optional plain ""
        "File that holds SERVER_API_KEY.";
    aws_access_key_id "AWS_ACCESS_KEY_ID" Optional secret ""
        "Static credentials. Without them: the AWS default chain, else the Edge API's queue credentials.";
    aws_access_key_id_file "AWS_ACCESS_KEY_ID_FILE" Optional plain ""
        "File that holds AWS_ACCESS_KEY_ID.";
    aws_secret_access_key "AWS_SECRET_ACCESS_KEY" Optional secret ""
        "Belongs to AWS_ACCESS_KEY_ID.";
    aws_secret_access_key_file "AWS_SECRET_ACCESS_KEY_FILE" Optional plain ""
        "File that holds AWS_SECRET_ACCESS_KEY.";
    aws_session_token "AWS_SESSION_TOKEN" Optional secret ""
        "Belongs to temporary static credentials; they are not renewed.";
    aws_session_token_file "AWS_SESSION_TOKEN_FILE" Optional plain ""
        "File that holds AWS_SESSION_TOKEN.";
    aws_endpoint_url_sqs "AWS_ENDPOINT_URL_SQS" Optional plain ""
        "Where SQS requests go. Without it: AWS_ENDPOINT_URL, else the origin of QUEUE_URL.";
    aws_endpoint_url "AWS_ENDPOINT_URL" Optional plain ""
        "Where requests to all AWS services go, where no variable names the service's own endpoint.";
    aws_endpoint_url_sts "AWS_ENDPOINT_URL_STS" Optional plain ""
        "Where STS requests go, for roles. Without it: AWS_ENDPOINT_URL, else the endpoint of AWS in the region.";
    aws_use_fips_endpoint "AWS_USE_FIPS_ENDPOINT" Optional plain ""
        "true to send requests to the FIPS endpoints of SQS and STS, where no endpoint is named.";
    aws_use_dualstack_endpoint "AWS_USE_DUALSTACK_ENDPOINT" Optional plain ""
        "true to send requests to the dual-stack endpoints (IPv4 and IPv6), where no endpoint is named.";
    sqs_role_arn "SQS_ROLE_ARN" Optional plain ""
        "Role to assume for the queue, with the static credentials or those of the AWS default chain.";
    sqs_role_external_id "SQS_ROLE_EXTERNAL_ID" Optional plain ""
        "External id that the trust policy of SQS_ROLE_ARN requires.";
    https_proxy "HTTPS_PROXY" Optional plain ""
        "Proxy for https requests to AWS and the Edge API; https_proxy and ALL_PROXY work too.";
    http_proxy "HTTP_PROXY" Optional plain ""
        "Proxy for http requests to AWS and the Edge API; http_proxy and ALL_PROXY work too.";
    no_proxy "NO_PROXY" Optional plain ""
        "Hosts, domains and networks that are reached without a proxy, separated by commas.";
    aws_ca_bundle "AWS_CA_BUNDLE" Optional plain ""
        "PEM file of CAs to verify AWS and the Edge API against, in addition to the system's roots.";
    ssl_cert_file "SSL_CERT_FILE" Optional plain ""
        "PEM file of CAs that replaces the system's roots, for all TLS.";
    environment_prefix "ENVIRONMENT_PREFIX" Default("production") plain "production"
        "First part of every Redis key; the SDK must use the same prefix.";
    redis_environment_prefix "REDIS_ENVIRONMENT_PREFIX" Alias("ENVIRONMENT_PREFIX") plain ""
        "Name of this variable in the vendor's chart.";
    redis_host "REDIS_HOST" Required plain "redis"
        "Host of the Redis primary, or `host:port` of several cluster nodes, separated by commas. REDIS_URL or REDIS_SENTINEL_HOSTS may replace it.";
    redis_url "REDIS_URL" Optional secret ""
        "All in one: `redis://user:password@host:port/db`; also `rediss`, `unix`, `redis-sentinel` and `redis-cluster`, see docs/redis.md.";
    redis_url_file "REDIS_URL_FILE" Optional plain ""
        "File that holds REDIS_URL; its user and password are read again for each connection.";
    redis_mode "REDIS_MODE" Optional plain ""
        "standalone, sentinel or cluster. Without it the mode follows from the other variables; a cluster with one address needs cluster.";
    redis_port "REDIS_PORT" Default("6379") plain "6379"
        "Port of Redis. The `tcp://host:port` that Kubernetes injects works too.";
    redis_db "REDIS_DB" Default("0") plain "0"
        "Redis database number, 0 to 255.";
    redis_user "REDIS_USER" Optional plain ""
        "Redis ACL user.";
    redis_username "REDIS_USERNAME" Alias("REDIS_USER") plain ""
        "Name of this variable in the vendor's chart.";
    redis_password "REDIS_PASSWORD" Optional secret ""
        "Redis password.";
    redis_password_file "REDIS_PASSWORD_FILE" Optional plain ""
        "File that holds REDIS_PASSWORD; read again for each connection.";
    redis_tls "REDIS_TLS" Default("0") plain "0"
        "1 to connect to Redis by TLS; its certificate is verified against the system's roots.";
    redis_tls_ca_file "REDIS_TLS_CA_FILE" Optional plain ""
        "PEM file of the CAs to verify Redis against, instead of the system's roots.";
    redis_tls_cert_file "REDIS_TLS_CERT_FILE" Optional plain ""
        "PEM file of the worker's client certificate and its chain.";
    redis_tls_key_file "REDIS_TLS_KEY_FILE" Optional plain ""
        "PEM file of the client certificate's private key.";
    redis_tls_server_name "REDIS_TLS_SERVER_NAME" Optional plain ""
        "Name that the certificate of Redis must hold, if it differs from the host.";
    redis_tls_insecure_skip_verify "REDIS_TLS_INSECURE_SKIP_VERIFY" Default("0") plain "0"
        "1 to accept any certificate. Insecure: anyone on the network path can read and change the traffic.";
    redis_sentinel_hosts "REDIS_SENTINEL_HOSTS" Optional plain ""
        "Sentinels, separated by commas, for example `a:26379,b:26379`; instead of REDIS_HOST.";
    redis_sentinel_master "REDIS_SENTINEL_MASTER" Optional plain ""
        "Name of the primary in the configuration of the sentinels.";
    redis_sentinel_user "REDIS_SENTINEL_USER" Optional plain ""
        "ACL user for the sentinels.";
    redis_sentinel_password "REDIS_SENTINEL_PASSWORD" Optional secret ""
        "Password for the sentinels.";
    redis_sentinel_password_file "REDIS_SENTINEL_PASSWORD_FILE" Optional plain ""
        "File that holds REDIS_SENTINEL_PASSWORD; read again for each connection.";
    redis_iam_auth "REDIS_IAM_AUTH" Default("0") plain "0"
        "1 to log in to ElastiCache by IAM instead of a password; needs REDIS_USER and TLS.";
    redis_iam_cache_name "REDIS_IAM_CACHE_NAME" Optional plain ""
        "Name of the replication group or serverless cache, for REDIS_IAM_AUTH.";
    redis_iam_serverless "REDIS_IAM_SERVERLESS" Default("0") plain "0"
        "1 if REDIS_IAM_CACHE_NAME is a serverless cache.";
    redis_wait_replicas "REDIS_WAIT_REPLICAS" Default("0") plain "0"
        "Replicas that must confirm each batch before its messages are acknowledged.";
    keys_ttl_in_secs "KEYS_TTL_IN_SECS" Default("604800") plain "604800"
        "Seconds until keys expire after each write; negative: they never expire.";
    cache_update_policy "CACHE_UPDATE_POLICY" Default("UPSERT") plain "UPSERT"
        "UPSERT writes entitlements; UPDATE_IF_EXISTS writes only those of customers that are already cached; INVALIDATE removes the customer, so that readers load it again.";
    credit_entitlements "CREDIT_ENTITLEMENTS" Default("invalidate") plain "invalidate"
        "What a list with credit entitlements does: invalidate removes the customer, as INVALIDATE does; omit writes the list without them, for deployments where all readers are SDK 3.x.";
    cache_lock_retry_count "CACHE_LOCK_RETRY_COUNT" Default("240") plain "240"
        "Retries of a message whose customer an SDK has locked, before the message returns to the queue.";
    batch_size "BATCH_SIZE" Default("1") plain "1"
        "Messages that a consumer requests per receive, 1 to 10.";
    consumers "CONSUMERS" Default("10") plain "10"
        "Consumers of this process, 1 to 1000.";
    min_pollers "MIN_POLLERS" Default("1") plain "1"
        "Consumers that keep polling while the queue is empty; the others sleep until there are more messages than these can process.";
    max_receive_count "MAX_RECEIVE_COUNT" Default("5") plain "5"
        "Deliveries after which the worker gives up on a message that it cannot apply: it leaves it for the dead-letter queue, or keeps it in Redis where there is none.";
    dead_letter_max_len "DEAD_LETTER_MAX_LEN" Default("1000") plain "1000"
        "Maximum number of messages in the Redis stream `<prefix>:dead-letter`, for queues without a redrive policy.";
    max_inflight_bytes "MAX_INFLIGHT_BYTES" Optional plain ""
        "Maximum bytes of message bodies in flight. Without it: a quarter of the memory limit, at most 64 MiB.";
    port "PORT" Default("4000") plain "4000"
        "Port of /livez, /readyz and /metrics.";
    read_port "READ_PORT" Optional plain ""
        "Port of the read API, which answers questions about entitlements. Without it the worker has no read API, and `serve` uses 4001.";
    read_api_keys "READ_API_KEYS" Optional secret ""
        "API keys that readers may use, separated by commas. Without it: SERVER_API_KEY.";
    read_api_keys_file "READ_API_KEYS_FILE" Optional plain ""
        "File that holds READ_API_KEYS, with keys separated by commas or line breaks; read again when it changes.";
    local_ttl_secs "LOCAL_TTL_SECS" Default("3600") plain "3600"
        "Seconds for which the read API still returns the last known state of a customer when neither Redis nor the Edge API confirms it. `30s` and `5m` work too; 0: never; negative: without limit.";
    cache_ttl "CACHE_TTL" Alias("LOCAL_TTL_SECS") plain ""
        "Another name of LOCAL_TTL_SECS.";
    local_fresh_ms "LOCAL_FRESH_MS" Default("1000") plain "1000"
        "Milliseconds for which an answer counts as fresh where Redis does not report changes.";
    local_max_bytes "LOCAL_MAX_BYTES" Optional plain ""
        "Maximum bytes of customers that the read API keeps in memory. Without it: a quarter of the memory limit, at most 256 MiB.";
    store "STORE" Default("redis") plain "redis"
        "Where the state is: redis, or memory for one process without a Redis.";
    mem_or_external "MEM_OR_EXTERNAL" Alias("STORE") plain ""
        "Another name of STORE, with the values MEM and REDIS.";
    snapshot_path "SNAPSHOT_PATH" Optional plain ""
        "Folder, or file name without its number, of the encrypted snapshots that a restart begins with. With STORE=memory, also of the journal. Without it: none are written.";
    mem_dump_path "MEM_DUMP_PATH" Alias("SNAPSHOT_PATH") plain ""
        "Another name of SNAPSHOT_PATH.";
    snapshot_key "SNAPSHOT_KEY" Optional secret ""
        "Key of the snapshots: 32 bytes as hex or base64, or a passphrase of 16 characters or more. Required with SNAPSHOT_PATH.";
    snapshot_key_file "SNAPSHOT_KEY_FILE" Optional plain ""
        "File that holds SNAPSHOT_KEY.";
    mem_encryption_key "MEM_ENCRYPTION_KEY" Alias("SNAPSHOT_KEY") secret ""
        "Another name of SNAPSHOT_KEY.";
    snapshot_key_previous "SNAPSHOT_KEY_PREVIOUS" Optional secret ""
        "The key before SNAPSHOT_KEY, for reading only, while the key is rotated.";
    snapshot_key_previous_file "SNAPSHOT_KEY_PREVIOUS_FILE" Optional plain ""
        "File that holds SNAPSHOT_KEY_PREVIOUS.";
    snapshot_interval_secs "SNAPSHOT_INTERVAL_SECS" Default("0") plain "0"
        "Seconds between two snapshots, if anything changed. `5m` works too; 0: only at shutdown, on SIGUSR1, on request and when the journal is large.";
    mem_auto_save_freq "MEM_AUTO_SAVE_FREQ" Alias("SNAPSHOT_INTERVAL_SECS") plain ""
        "Another name of SNAPSHOT_INTERVAL_SECS.";
    mem_auto_save_enabled "MEM_AUTO_SAVE_ENABLED" Optional plain ""
        "true for snapshots by time, every 300 s unless SNAPSHOT_INTERVAL_SECS is set; false turns MEM_AUTO_SAVE_FREQ off.";
    snapshot_keep "SNAPSHOT_KEEP" Default("3") plain "3"
        "Snapshots that are kept, 1 to 100.";
    admin_token "ADMIN_TOKEN" Optional secret ""
        "Bearer token of the routes under /admin on PORT. Without it they do not exist.";
    admin_token_file "ADMIN_TOKEN_FILE" Optional plain ""
        "File that holds ADMIN_TOKEN.";
    shutdown_timeout_secs "SHUTDOWN_TIMEOUT_SECS" Default("8") plain "8"
        "Seconds that a shutdown may take, 2 to 300; Docker kills after 10.";
    edge_api_url "EDGE_API_URL" Default("https://edge.api.stigg.io") plain "https://edge.api.stigg.io"
        "The Edge API.";
    sentry_dsn "SENTRY_DSN" Optional secret ""
        "Sentry DSN that errors are reported to. Without it, the worker uses the DSN that the Edge API returns.";
    sentry_dsn_file "SENTRY_DSN_FILE" Optional plain ""
        "File that holds SENTRY_DSN.";
    disable_sentry "DISABLE_SENTRY" Default("0") plain "0"
        "1 to turn off error reports to Sentry.";
    log_format "LOG_FORMAT" Optional plain ""
        "json or text. Without it: text on a terminal, json elsewhere.";
    log_level "LOG_LEVEL" Default("info") plain "info"
        "error, warn, info, debug or trace.";
    rust_log "RUST_LOG" Optional plain ""
        "Log filter by module; wins over LOG_LEVEL.";
    otel_exporter_otlp_endpoint "OTEL_EXPORTER_OTLP_ENDPOINT" Optional plain ""
        "Base URL that traces are sent to, by OTLP over HTTP, for example http://collector:4318. Without it, no traces are sent.";
    otel_exporter_otlp_traces_endpoint "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" Optional plain ""
        "Full URL that traces are sent to. Without it: /v1/traces below OTEL_EXPORTER_OTLP_ENDPOINT.";
    otel_exporter_otlp_headers "OTEL_EXPORTER_OTLP_HEADERS" Optional secret ""
        "Headers of requests with traces: name=value, separated by commas.";
    otel_exporter_otlp_traces_headers "OTEL_EXPORTER_OTLP_TRACES_HEADERS" Optional secret ""
        "Headers of requests with traces; replaces OTEL_EXPORTER_OTLP_HEADERS.";
    otel_exporter_otlp_timeout "OTEL_EXPORTER_OTLP_TIMEOUT" Optional plain ""
        "Timeout of a request with traces, in milliseconds. Without it: 10000.";
    otel_traces_exporter "OTEL_TRACES_EXPORTER" Optional plain ""
        "otlp, or none to send no traces.";
    otel_traces_sampler "OTEL_TRACES_SAMPLER" Optional plain ""
        "Which traces are sent, for example parentbased_traceidratio. Without it: all.";
    otel_traces_sampler_arg "OTEL_TRACES_SAMPLER_ARG" Optional plain ""
        "The ratio of OTEL_TRACES_SAMPLER, 0 to 1.";
    otel_service_name "OTEL_SERVICE_NAME" Optional plain ""
        "Name of this service in traces. Without it: entitlement-sync.";
    otel_resource_attributes "OTEL_RESOURCE_ATTRIBUTES" Optional plain ""
        "Attributes of all traces: name=value, separated by commas.";
    otel_sdk_disabled "OTEL_SDK_DISABLED" Optional plain ""
        "true to send no traces.";
}
