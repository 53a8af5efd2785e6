//! The fields of an app file as editors and validators see them: the source of `bellows schema`. Reading is done by `read`, which
//! tells all mistakes at once; a test holds both against one table of files.
#![allow(dead_code, reason = "only the derived schema is used; the fields are its source")]

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema};

/// What fields mean that were left out.
pub mod defaults {
    use bellows_proto::types::port::Protocol;
    use bellows_proto::types::spread::WhenFull;

    /// One copy.
    pub const REPLICAS: u32 = 1;
    /// A tenth of a CPU.
    pub const CPU_MILLI: u64 = 100;
    /// 64 MiB.
    pub const MEMORY_BYTES: u64 = 64 << 20;
    /// Enough for a threaded server, few enough to stop a fork bomb.
    pub const PROCESSES: u32 = 256;
    /// 64 MiB.
    pub const SCRATCH_BYTES: u64 = 64 << 20;
    /// 16 MiB.
    pub const LOG_BYTES: u64 = 16 << 20;
    /// 10 s, as Docker does.
    pub const STOP_GRACE_MS: u64 = 10_000;
    /// 2 min.
    pub const DRAIN_DEADLINE_MS: u64 = 120_000;
    /// One copy stays.
    pub const MIN: u32 = 1;
    /// 30 s.
    pub const IDLE_GRACE_MS: u64 = 30_000;
    /// None.
    pub const SPARE: u32 = 0;
    /// At once.
    pub const CHECK_DELAY_MS: u64 = 0;
    /// 10 s, as in Kubernetes, and so are the others.
    pub const CHECK_PERIOD_MS: u64 = 10_000;
    /// 1 s.
    pub const CHECK_TIMEOUT_MS: u64 = 1_000;
    /// One.
    pub const CHECK_SUCCESSES: u32 = 1;
    /// Three in a row.
    pub const CHECK_FAILURES: u32 = 3;
    /// Even.
    pub const SKEW: u32 = 1;
    /// Requests at once that a copy shall have, when neither a limit nor a policy says: what an idle thread pool takes.
    pub const CONCURRENCY: u32 = 100;
    /// A burst of a thousand.
    pub const HELD_REQUESTS: u32 = 1_000;
    /// 16 MiB.
    pub const HELD_BYTES: u64 = 16 << 20;
    /// The patience of a person.
    pub const HOLD_TIME_MS: u64 = 10_000;
    /// Running unevenly is better than not running.
    pub const WHEN_FULL: WhenFull = WhenFull::Relax;
    /// What most elastic apps speak.
    pub const PROTOCOL: Protocol = Protocol::Http;
}

/// The JSON Schema of one document of an app file.
pub fn schema() -> Schema {
    schemars::schema_for!(App)
}

const NAME: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
const HOST: &str = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$";
const PATH: &str = r#"^/((?!\.{0,2}/)[!$&-.0-;=@-\[\]-~]+/)*((?!\.{1,2}$)[!$&-.0-;=@-\[\]-~]+)?$"#;
const LABEL: &str = "^[A-Za-z0-9._/-]{1,63}$";
const REQUEST_PATH: &str = r"^/[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]{0,2047}$";
const DURATION: &str = "^([0-9]+(ms|s|m|min|h|d))+$";
const SIZE: &str = "^[0-9]+(\\.[0-9]+)?(B|[kKMGT]B?|[KMGT]iB?)?$";

/// A Bellows app
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("not" = {"required": ["replicas", "policy"]}))]
#[schemars(extend("if" = {"required": ["policy"], "properties": {"policy": {"type": "object", "anyOf": [
    {"required": ["concurrency"]}, {"required": ["requests_per_second"]}
]}}}, "then" = {"required": ["routes"], "properties": {"routes": {"minItems": 1}}}))]
struct App {
    /// Unique within the tenant
    #[schemars(regex(pattern = NAME))]
    name: String,
    /// Whose app it is [default: --tenant]
    #[schemars(regex(pattern = NAME))]
    #[schemars(default)]
    tenant: Present<String>,
    /// An image that was loaded: a name, or a digest
    #[schemars(regex(pattern = r"\S"))]
    image: String,
    /// Replaces the image's entrypoint
    #[schemars(default)]
    command: Present<Vec<Word>>,
    /// Replaces the image's arguments
    #[schemars(default)]
    args: Present<Vec<Word>>,
    /// Added to the image's environment
    #[schemars(default)]
    env: Present<BTreeMap<String, Word>>,
    /// What each copy takes of its node, which is also its limit
    #[schemars(default)]
    resources: Present<Declared>,
    /// How many copies [default: 1]; or leave it to `policy`
    #[schemars(range(min = 0, max = 1_000_000))]
    #[schemars(default)]
    replicas: Present<u32>,
    /// Bounds, and what decides between them; instead of `replicas`
    #[schemars(default)]
    policy: Present<Policies>,
    /// What the app listens on; the first one decides when a copy is ready
    #[schemars(default)]
    ports: Present<Vec<Listening>>,
    /// How requests reach the app; every node takes them
    #[schemars(default)]
    routes: Present<Vec<Way>>,
    /// How many requests a copy has at once
    #[schemars(default)]
    concurrency: Present<AtOnce>,
    /// What may wait while no copy can take it, at each node
    #[schemars(default)]
    hold: Present<Waiting>,
    /// A new copy's share of requests grows over this long [default: 0s]
    #[schemars(regex(pattern = DURATION))]
    #[schemars(default)]
    slow_start: Present<String>,
    /// Whether copies reach what lies beyond their node [default: false]; other copies and the node itself they never reach
    #[schemars(default)]
    egress: Present<bool>,
    /// What copies do without, beyond what no copy has
    #[schemars(default)]
    security: Present<Confined>,
    /// From SIGTERM to SIGKILL [default: 10s]
    #[schemars(regex(pattern = DURATION))]
    #[schemars(default)]
    stop_grace: Present<String>,
    /// How long a copy that shall end may take to become idle [default: 2m]
    #[schemars(regex(pattern = DURATION))]
    #[schemars(default)]
    drain_deadline: Present<String>,
    /// Conditions on a node's labels; every one must hold
    #[schemars(default)]
    constraints: Present<Vec<Condition>>,
    /// Even spread over the values of a node label
    #[schemars(default)]
    spread: Present<Evenly>,
    /// The most copies on one node
    #[schemars(range(min = 1, max = 1_000_000))]
    #[schemars(default)]
    max_per_node: Present<u32>,
    /// What an agent without a controller does [default: keep_running]
    #[schemars(default)]
    when_cut_off: Present<CutOff>,
    /// What each copy is asked, again and again
    #[schemars(default)]
    health: Present<Asked>,
}

/// A field that may be left out but not be null. Always with `#[schemars(default)]`: then it is not required.
struct Present<T>(std::marker::PhantomData<T>);

impl<T> Default for Present<T> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<T: JsonSchema> JsonSchema for Present<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// Text, number or truth value; taken as written
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Word {
    Text(String),
    Number(f64),
    Truth(bool),
}

/// What each copy takes of its node
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Declared {
    /// CPUs: 250m, 0.5, 2 [default: 100m]
    #[schemars(default)]
    cpu: Present<Cpu>,
    /// Memory: 64Mi, 1G [default: 64Mi]
    #[schemars(default)]
    memory: Present<Size>,
    /// Processes and threads [default: 256]
    #[schemars(range(min = 1, max = 4_194_304))]
    #[schemars(default)]
    processes: Present<u32>,
    /// Bound of the writable part of its file tree [default: 64Mi]
    #[schemars(default)]
    scratch: Present<Size>,
    /// Bound of its kept log [default: 16Mi]
    #[schemars(default)]
    log: Present<Size>,
    /// Share of the CPU when there is too little for all, 100 being usual [default: as its CPU]
    #[schemars(range(min = 1, max = 10_000))]
    #[schemars(default)]
    cpu_weight: Present<u32>,
    /// What goes between it and its node's disk at most, in a second [default: no limits]
    #[schemars(default)]
    io: Present<Rates>,
}

/// What goes between a copy and its node's disk at most, in a second
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Rates {
    /// Bytes read [default: no limit]
    #[schemars(default)]
    read: Present<Size>,
    /// Bytes written [default: no limit]
    #[schemars(default)]
    write: Present<Size>,
    /// Reads [default: no limit]
    #[schemars(range(min = 10, max = 100_000_000))]
    #[schemars(default)]
    read_operations: Present<u64>,
    /// Writes [default: no limit]
    #[schemars(range(min = 10, max = 100_000_000))]
    #[schemars(default)]
    write_operations: Present<u64>,
}

/// What copies do without, beyond what no copy has
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Confined {
    /// Capabilities, of those that copies have
    #[schemars(default)]
    drop_capabilities: Present<Vec<Capability>>,
    /// System calls, of those that copies may make: refused with EPERM
    #[schemars(default)]
    deny_calls: Present<Vec<Call>>,
    /// Capabilities beyond those that copies have, where the controller's administrator allows it
    #[schemars(default)]
    add_capabilities: Present<Vec<MoreCapability>>,
    /// System calls beyond those that copies may make, where the controller's administrator allows it
    #[schemars(default)]
    add_calls: Present<Vec<MoreCall>>,
}

struct MoreCapability;

impl JsonSchema for MoreCapability {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "MoreCapability".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> Schema {
        let names: Vec<&str> = bellows_runtime::names::more_capabilities().collect();
        schemars::json_schema!({ "description": "A capability that copies may be given", "type": "string", "enum": names })
    }
}

struct MoreCall;

impl JsonSchema for MoreCall {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "MoreCall".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> Schema {
        let names: Vec<&str> = bellows_runtime::names::more_calls().collect();
        schemars::json_schema!({ "description": "A system call that copies may be allowed", "type": "string", "enum": names })
    }
}

struct Capability;

impl JsonSchema for Capability {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Capability".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> Schema {
        let names: Vec<&str> = bellows_runtime::names::capabilities().collect();
        schemars::json_schema!({ "description": "A capability that copies have", "type": "string", "enum": names })
    }
}

struct Call;

impl JsonSchema for Call {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Call".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> Schema {
        let names: Vec<&str> = bellows_runtime::names::calls().collect();
        schemars::json_schema!({ "description": "A system call that copies may make", "type": "string", "enum": names })
    }
}

/// An amount of CPU
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Cpu {
    Text(#[schemars(regex(pattern = r"^([0-9]+m|[0-9]+(\.[0-9]+)?)$"))] String),
    Number(#[schemars(range(min = 0.010, max = 4096))] f64),
}

/// An amount of bytes
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Size {
    Text(#[schemars(regex(pattern = SIZE))] String),
    Number(u64),
}

/// Bounds, and what decides between them
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[schemars(extend("anyOf" = [
    {"required": ["concurrency"]}, {"required": ["requests_per_second"]},
    {"anyOf": [{"required": ["cpu"]}, {"required": ["memory"]}], "properties": {"min": {"minimum": 1}}}
]))]
struct Policies {
    /// Never fewer [default: 1]; at least 1 without a target for requests, since 0 copies use no CPU that could start the first again
    #[schemars(range(min = 0, max = 1_000_000))]
    #[schemars(default)]
    min: Present<u32>,
    /// Never more
    #[schemars(range(min = 1, max = 1_000_000))]
    max: u32,
    /// How long less must be wanted before copies end [default: 30s]
    #[schemars(regex(pattern = DURATION))]
    #[schemars(default)]
    idle_grace: Present<String>,
    /// Copies ready beyond need [default: 0]
    #[schemars(range(min = 0, max = 1_000_000))]
    #[schemars(default)]
    spare: Present<u32>,
    /// No faster up than this [default: at once]
    #[schemars(default)]
    up: Present<Pace>,
    /// No faster down than this [default: at once]
    #[schemars(default)]
    down: Present<Pace>,
    /// Requests at once per copy, waiting ones counted; the largest of all targets' counts wins
    #[schemars(default)]
    concurrency: Present<AtOnceTarget>,
    /// Requests that arrive per second and copy
    #[schemars(default)]
    requests_per_second: Present<PerSecondTarget>,
    /// CPU use per copy, against what it declares
    #[schemars(default)]
    cpu: Present<ShareTarget>,
    /// Memory use per copy, against what it declares
    #[schemars(default)]
    memory: Present<ShareTarget>,
}

/// So many copies within so long
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Pace {
    #[schemars(range(min = 1, max = 1_000_000))]
    copies: u32,
    #[schemars(regex(pattern = DURATION))]
    per: String,
}

/// Requests at once per copy
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct AtOnceTarget {
    #[schemars(range(min = 1, max = 1_048_576))]
    target: u32,
}

/// Requests per second and copy
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct PerSecondTarget {
    #[schemars(range(min = 1, max = 10_000_000))]
    target: u32,
}

/// Use per copy
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ShareTarget {
    /// Share of what is declared that copies shall use: 60%
    #[schemars(regex(pattern = r"^[0-9]+(\.[0-9]+)?%$"))]
    target: String,
}

/// One way to the app: by port, host and path
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("dependentRequired" = {"tls": ["listen"]}))]
struct Way {
    /// A port of the nodes [default: those that all apps share]; a TCP port needs one for itself
    #[schemars(range(min = 1, max = 65_535))]
    #[schemars(default)]
    listen: Present<u16>,
    /// Does `listen` take TLS, with the certificates of the nodes? [default: false]
    #[schemars(default)]
    tls: Present<bool>,
    /// A request with a larger body is refused with 413 [default: any]
    #[schemars(default)]
    max_body: Present<Size>,
    /// The host that requests name [default: any]
    #[schemars(regex(pattern = HOST), length(max = 253))]
    #[schemars(default)]
    host: Present<String>,
    /// What their path begins with, in whole segments [default: any]
    #[schemars(regex(pattern = PATH), length(max = 1_024))]
    #[schemars(default)]
    path: Present<String>,
    /// Name or number of the app's port [default: the first]
    #[schemars(default)]
    to: Present<PortOf>,
}

/// Name or number of one of the app's ports
#[derive(JsonSchema)]
#[schemars(untagged)]
enum PortOf {
    Number(#[schemars(range(min = 1, max = 65_535))] u16),
    Name(#[schemars(length(min = 1))] String),
}

/// How many requests a copy has at once
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct AtOnce {
    /// Never more; what comes beyond it waits [default: no limit]
    #[schemars(range(min = 1, max = 1_048_576))]
    #[schemars(default)]
    limit: Present<u32>,
    /// The oldest copy with fewer is preferred, so that others go idle [default: the policy's, else the limit, else 100]
    #[schemars(range(min = 1, max = 1_048_576))]
    #[schemars(default)]
    target: Present<u32>,
}

/// What may wait while no copy can take it, at each node
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Waiting {
    /// Requests [default: 1000]
    #[schemars(range(min = 0, max = 1_048_576))]
    #[schemars(default)]
    requests: Present<u32>,
    /// Of their bodies [default: 16Mi]
    #[schemars(default)]
    bytes: Present<Size>,
    /// Each [default: 10s]
    #[schemars(regex(pattern = DURATION))]
    #[schemars(default)]
    time: Present<String>,
}

/// A port's number, or its fields
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Listening {
    Number(#[schemars(range(min = 1, max = 65_535))] u16),
    Fields(NamedPort),
}

/// A port
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct NamedPort {
    /// For people and routes
    #[schemars(regex(pattern = NAME))]
    #[schemars(default)]
    name: Present<String>,
    /// Inside the copy's own network
    #[schemars(range(min = 1, max = 65_535))]
    port: u16,
    /// What is spoken [default: http]
    #[schemars(default)]
    protocol: Present<Spoken>,
}

/// What is spoken on a port: `http` is HTTP/1.1; `http2` HTTP/2 in clear from its preface on, as gRPC servers do; `tcp` bytes
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Spoken {
    Http,
    Http2,
    Tcp,
}

/// A condition on a node's label: exactly one of in, not_in, exists
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Condition {
    In(LabelIn),
    NotIn(LabelNotIn),
    Exists(LabelExists),
}

/// The label has one of the values
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct LabelIn {
    #[schemars(regex(pattern = LABEL))]
    label: String,
    #[schemars(length(min = 1))]
    r#in: Vec<Word>,
}

/// The label is absent or has none of the values
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct LabelNotIn {
    #[schemars(regex(pattern = LABEL))]
    label: String,
    #[schemars(length(min = 1))]
    not_in: Vec<Word>,
}

/// The label is there, or is not
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct LabelExists {
    #[schemars(regex(pattern = LABEL))]
    label: String,
    exists: bool,
}

/// Even spread over the values of a node label
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Evenly {
    /// A label's key, or `node` for every node by itself
    #[schemars(regex(pattern = LABEL))]
    by: String,
    /// By how much the fullest value may exceed the emptiest [default: 1]
    #[schemars(range(min = 1, max = 1_000_000))]
    #[schemars(default)]
    max_skew: Present<u32>,
    /// What to do when no node keeps the spread [default: relax]
    #[schemars(default)]
    when_full: Present<Full>,
}

/// What to do when no node keeps the spread
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Full {
    /// Place anyway, and say so
    Relax,
    /// Leave the copy unplaced, and say so
    Refuse,
}

/// What an agent without a controller does
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum CutOff {
    /// Serve on; the cluster may run more copies than wanted for a while
    KeepRunning,
    /// End the copies after this long; they are replaced only after that and a margin
    #[schemars(untagged)]
    Stop(StopAfter),
}

/// End the copies after this long
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct StopAfter {
    #[schemars(regex(pattern = DURATION))]
    stop_after: String,
}

/// What each copy is asked, again and again
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Asked {
    /// Has it started? The others begin when this has succeeded; its failure starts the copy again, in place
    #[schemars(default)]
    startup: Present<Tried>,
    /// Is there hope for it? Its failure starts the copy again, in place
    #[schemars(default)]
    liveness: Present<Tried>,
    /// Does it answer? [default: the first port listens]
    #[schemars(default)]
    readiness: Present<Tried>,
}

/// A check, done in exactly one way
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("oneOf" = [{"required": ["exec"]}, {"required": ["http"]}, {"required": ["tcp"]}]))]
struct Tried {
    /// A program in the copy; success: it returns 0
    #[schemars(length(min = 1))]
    #[schemars(default)]
    exec: Present<Vec<Word>>,
    /// A request; success: status 200 to 399
    #[schemars(default)]
    http: Present<HttpRequest>,
    /// A port; success: a connection is made
    #[schemars(range(min = 1, max = 65_535))]
    #[schemars(default)]
    tcp: Present<u16>,
    /// From the copy's start to the first one [default: 0s]
    #[schemars(regex(pattern = DURATION))]
    #[schemars(default)]
    initial_delay: Present<String>,
    /// From one to the next [default: 10s]
    #[schemars(regex(pattern = DURATION))]
    #[schemars(default)]
    period: Present<String>,
    /// One that takes longer has failed [default: 1s]
    #[schemars(regex(pattern = DURATION))]
    #[schemars(default)]
    timeout: Present<String>,
    /// So many in a row are a success [default: 1]; only a readiness check takes more than one
    #[schemars(range(min = 1, max = 1_000))]
    #[schemars(default)]
    success_threshold: Present<u32>,
    /// So many in a row are a failure [default: 3]
    #[schemars(range(min = 1, max = 1_000))]
    #[schemars(default)]
    failure_threshold: Present<u32>,
}

/// A request to the copy
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct HttpRequest {
    /// Of the copy's own address
    #[schemars(range(min = 1, max = 65_535))]
    port: u16,
    /// With a query, if there is one [default: /]
    #[schemars(regex(pattern = REQUEST_PATH))]
    #[schemars(default)]
    path: Present<String>,
    /// Added to the request
    #[schemars(default)]
    headers: Present<BTreeMap<String, Word>>,
}
