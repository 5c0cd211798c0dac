//! Every variable, once: its name, default, example and meaning. The environment is read through
//! this table, and `--help`, `.env.example` and the README's table are printed from it.

use serde::Deserialize;

/// What the README says of one variable.
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
    /// Another spelling of the variable named.
    Alias(&'static str),
}

macro_rules! variables {
    ($($field:ident $name:literal $need:ident$(($default:literal))? $secrecy:ident $example:literal $about:literal;)+) => {
        /// The environment as it is: flat, every value a string, nothing checked.
        #[derive(Default, Deserialize)]
        pub struct Raw {
            $(pub $field: Option<String>,)+
        }

        /// All variables, in the order in which people meet them.
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
        "As above, for all AWS services.";
    aws_endpoint_url_sts "AWS_ENDPOINT_URL_STS" Optional plain ""
        "Where STS requests go, for roles. Without it: AWS_ENDPOINT_URL, else AWS's own of the region.";
    aws_use_fips_endpoint "AWS_USE_FIPS_ENDPOINT" Optional plain ""
        "true to send requests to the FIPS endpoints of SQS and STS, where no endpoint is named.";
    aws_use_dualstack_endpoint "AWS_USE_DUALSTACK_ENDPOINT" Optional plain ""
        "true to send requests to the dual-stack endpoints, over IPv6 as well, where no endpoint is named.";
    sqs_role_arn "SQS_ROLE_ARN" Optional plain ""
        "Role to take on for the queue, by the keys given or those of the AWS default chain.";
    sqs_role_external_id "SQS_ROLE_EXTERNAL_ID" Optional plain ""
        "External id that the trust policy of SQS_ROLE_ARN asks for.";
    https_proxy "HTTPS_PROXY" Optional plain ""
        "Proxy for https requests to AWS and the Edge API; https_proxy and ALL_PROXY work too.";
    http_proxy "HTTP_PROXY" Optional plain ""
        "The same for http requests.";
    no_proxy "NO_PROXY" Optional plain ""
        "Hosts, domains and networks that are reached without a proxy, with commas between.";
    aws_ca_bundle "AWS_CA_BUNDLE" Optional plain ""
        "PEM file of certificates that AWS and the Edge API are trusted by, beside the system's roots.";
    ssl_cert_file "SSL_CERT_FILE" Optional plain ""
        "PEM file in place of the system's roots, for all TLS.";
    environment_prefix "ENVIRONMENT_PREFIX" Default("production") plain "production"
        "First part of every Redis key; the SDK must use the same.";
    redis_environment_prefix "REDIS_ENVIRONMENT_PREFIX" Alias("ENVIRONMENT_PREFIX") plain ""
        "The same, as the vendor's chart spells it.";
    redis_host "REDIS_HOST" Required plain "redis"
        "Host of the Redis primary, or `host:port` of several cluster nodes, separated by commas. REDIS_URL or REDIS_SENTINEL_HOSTS may stand in.";
    redis_url "REDIS_URL" Optional secret ""
        "All in one: `redis://user:password@host:port/db`; also `rediss`, `unix`, `redis-sentinel` and `redis-cluster`, see docs/redis.md.";
    redis_url_file "REDIS_URL_FILE" Optional plain ""
        "File that holds REDIS_URL; its user and password are read again for each connection.";
    redis_mode "REDIS_MODE" Optional plain ""
        "standalone, sentinel or cluster, where it cannot be told from the rest: cluster for a cluster of which one address is given.";
    redis_port "REDIS_PORT" Default("6379") plain "6379"
        "Port of Redis; Kubernetes' injected `tcp://host:port` is understood.";
    redis_db "REDIS_DB" Default("0") plain "0"
        "Redis database number, 0 to 255.";
    redis_user "REDIS_USER" Optional plain ""
        "Redis ACL user.";
    redis_username "REDIS_USERNAME" Alias("REDIS_USER") plain ""
        "The same, as the vendor's chart spells it.";
    redis_password "REDIS_PASSWORD" Optional secret ""
        "Redis password.";
    redis_password_file "REDIS_PASSWORD_FILE" Optional plain ""
        "File that holds REDIS_PASSWORD; read again for each connection.";
    redis_tls "REDIS_TLS" Default("0") plain "0"
        "1 to speak TLS to Redis; certificates are verified, against the system's roots.";
    redis_tls_ca_file "REDIS_TLS_CA_FILE" Optional plain ""
        "PEM file of the CAs to verify Redis against, in place of the system's roots.";
    redis_tls_cert_file "REDIS_TLS_CERT_FILE" Optional plain ""
        "PEM file of our client certificate and its chain.";
    redis_tls_key_file "REDIS_TLS_KEY_FILE" Optional plain ""
        "PEM file of the client certificate's private key.";
    redis_tls_server_name "REDIS_TLS_SERVER_NAME" Optional plain ""
        "Name that the certificate of Redis must hold, where it is not the host connected to.";
    redis_tls_insecure_skip_verify "REDIS_TLS_INSECURE_SKIP_VERIFY" Default("0") plain "0"
        "1 to take any certificate: whoever is on the way can read and change everything.";
    redis_sentinel_hosts "REDIS_SENTINEL_HOSTS" Optional plain ""
        "Sentinels, separated by commas, such as `a:26379,b:26379`; in place of REDIS_HOST.";
    redis_sentinel_master "REDIS_SENTINEL_MASTER" Optional plain ""
        "Name of the primary, as the sentinels know it.";
    redis_sentinel_user "REDIS_SENTINEL_USER" Optional plain ""
        "ACL user of the sentinels themselves.";
    redis_sentinel_password "REDIS_SENTINEL_PASSWORD" Optional secret ""
        "Password of the sentinels themselves.";
    redis_sentinel_password_file "REDIS_SENTINEL_PASSWORD_FILE" Optional plain ""
        "File that holds REDIS_SENTINEL_PASSWORD; read again for each connection.";
    redis_iam_auth "REDIS_IAM_AUTH" Default("0") plain "0"
        "1 to log in to ElastiCache by IAM, as REDIS_USER and over TLS, in place of a password.";
    redis_iam_cache_name "REDIS_IAM_CACHE_NAME" Optional plain ""
        "Name of the replication group or serverless cache, for REDIS_IAM_AUTH.";
    redis_iam_serverless "REDIS_IAM_SERVERLESS" Default("0") plain "0"
        "1 where REDIS_IAM_CACHE_NAME is a serverless cache.";
    redis_wait_replicas "REDIS_WAIT_REPLICAS" Default("0") plain "0"
        "Replicas that must confirm each batch before its messages are acknowledged.";
    keys_ttl_in_secs "KEYS_TTL_IN_SECS" Default("604800") plain "604800"
        "Seconds that keys live after each write; negative: for ever.";
    cache_update_policy "CACHE_UPDATE_POLICY" Default("UPSERT") plain "UPSERT"
        "UPSERT writes entitlements; UPDATE_IF_EXISTS, only of customers that are cached already; INVALIDATE removes the customer, so that readers load it afresh.";
    credit_entitlements "CREDIT_ENTITLEMENTS" Default("invalidate") plain "invalidate"
        "What a list with credit entitlements does: invalidate removes the customer, as INVALIDATE does; omit writes the list without them, where all readers are SDK 3.x.";
    cache_lock_retry_count "CACHE_LOCK_RETRY_COUNT" Default("240") plain "240"
        "How often a message whose customer is locked by an SDK is tried again before it goes back to the queue.";
    batch_size "BATCH_SIZE" Default("1") plain "1"
        "Messages a consumer asks for at once, 1 to 10.";
    consumers "CONSUMERS" Default("10") plain "10"
        "Consumers of this process, 1 to 1000.";
    min_pollers "MIN_POLLERS" Default("1") plain "1"
        "Consumers that go on polling while the queue is empty; the others sleep until there is more than these can carry.";
    max_receive_count "MAX_RECEIVE_COUNT" Default("5") plain "5"
        "Deliveries after which a message that cannot be applied is given up: left for the dead-letter queue, or kept in Redis where there is none.";
    dead_letter_max_len "DEAD_LETTER_MAX_LEN" Default("1000") plain "1000"
        "Most messages that the Redis stream `<prefix>:dead-letter` keeps, for queues without a redrive policy.";
    max_inflight_bytes "MAX_INFLIGHT_BYTES" Optional plain ""
        "Bytes of message bodies held at once. Without it: a quarter of the memory limit, 64 MiB at most.";
    port "PORT" Default("4000") plain "4000"
        "Port of /livez, /readyz and /metrics.";
    read_port "READ_PORT" Optional plain ""
        "Port of the read API, which answers questions about entitlements. Without it the worker answers none; `serve` takes 4001.";
    read_api_keys "READ_API_KEYS" Optional secret ""
        "Keys that readers may present, separated by commas. Without it: SERVER_API_KEY.";
    read_api_keys_file "READ_API_KEYS_FILE" Optional plain ""
        "File that holds READ_API_KEYS, with commas or line breaks between keys; read again when it changes.";
    local_ttl_secs "LOCAL_TTL_SECS" Default("3600") plain "3600"
        "Seconds that the last known state of a customer is still answered once neither Redis nor the Edge API confirms it; `30s` and `5m` too; 0: never; negative: for ever.";
    cache_ttl "CACHE_TTL" Alias("LOCAL_TTL_SECS") plain ""
        "The same, by another name.";
    local_fresh_ms "LOCAL_FRESH_MS" Default("1000") plain "1000"
        "Milliseconds that an answer counts as fresh where Redis cannot tell of changes.";
    local_max_bytes "LOCAL_MAX_BYTES" Optional plain ""
        "Bytes of customers that the read API keeps in memory. Without it: a quarter of the memory limit, 256 MiB at most.";
    shutdown_timeout_secs "SHUTDOWN_TIMEOUT_SECS" Default("8") plain "8"
        "Seconds that a shutdown may take, 2 to 300; Docker kills after 10.";
    edge_api_url "EDGE_API_URL" Default("https://edge.api.stigg.io") plain "https://edge.api.stigg.io"
        "The Edge API.";
    sentry_dsn "SENTRY_DSN" Optional secret ""
        "Where errors are reported. Without it, it is fetched from the Edge API.";
    sentry_dsn_file "SENTRY_DSN_FILE" Optional plain ""
        "File that holds SENTRY_DSN.";
    disable_sentry "DISABLE_SENTRY" Default("0") plain "0"
        "1 to report errors nowhere.";
    log_format "LOG_FORMAT" Optional plain ""
        "json or text. Without it: text on a terminal, json elsewhere.";
    log_level "LOG_LEVEL" Default("info") plain "info"
        "error, warn, info, debug or trace.";
    rust_log "RUST_LOG" Optional plain ""
        "Log filter by module; wins over LOG_LEVEL.";
    otel_exporter_otlp_endpoint "OTEL_EXPORTER_OTLP_ENDPOINT" Optional plain ""
        "Where traces are sent by OTLP over HTTP, such as http://collector:4318. Without it: nowhere.";
    otel_exporter_otlp_traces_endpoint "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" Optional plain ""
        "The same, with its path, which is /v1/traces below the above.";
    otel_exporter_otlp_headers "OTEL_EXPORTER_OTLP_HEADERS" Optional secret ""
        "Headers of requests with traces: name=value, with commas between.";
    otel_exporter_otlp_traces_headers "OTEL_EXPORTER_OTLP_TRACES_HEADERS" Optional secret ""
        "In place of OTEL_EXPORTER_OTLP_HEADERS.";
    otel_exporter_otlp_timeout "OTEL_EXPORTER_OTLP_TIMEOUT" Optional plain ""
        "Milliseconds that sending traces may take; 10000 without it.";
    otel_traces_exporter "OTEL_TRACES_EXPORTER" Optional plain ""
        "otlp, or none to send no traces.";
    otel_traces_sampler "OTEL_TRACES_SAMPLER" Optional plain ""
        "Which traces are sent, for example parentbased_traceidratio. Without it: all.";
    otel_traces_sampler_arg "OTEL_TRACES_SAMPLER_ARG" Optional plain ""
        "The ratio of OTEL_TRACES_SAMPLER, 0 to 1.";
    otel_service_name "OTEL_SERVICE_NAME" Optional plain ""
        "Name of this service in traces; entitlement-sync without it.";
    otel_resource_attributes "OTEL_RESOURCE_ATTRIBUTES" Optional plain ""
        "Attributes of all traces: name=value, with commas between.";
    otel_sdk_disabled "OTEL_SDK_DISABLED" Optional plain ""
        "true to send no traces.";
}
