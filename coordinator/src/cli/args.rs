//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use evenkeel_common::id::SweepId;
use evenkeel_common::runtime::LogFormat;
use evenkeel_common::runtime::flags::{EtcdArgs, duration};
use evenkeel_common::runtime::tls::TlsFiles;

use crate::driver::TraceConfig;

const ABOUT: &str =
    "Measures how stable fine-tuning is: sweeps of datasets, strategies and seeds, on one machine or many";

const EXAMPLES: &str = "\
Examples:
  evenkeel plan examples/quickstart.yaml                  what it would run, and what that costs
  evenkeel run examples/quickstart.yaml --out out/first   run it here; the same line again resumes it
  evenkeel coordinator --etcd http://etcd:2379 --store s3://bucket/evenkeel
  evenkeel submit sweep.yaml --wait && evenkeel results ID --out results

Exit codes:
  0  every trial is accounted for, none failed     1  finished, but some trials failed
  2  bad usage or a bad spec                       3  something is not reachable
  130  interrupted; the state is safe, run the same again to resume";

/// The command line of Evenkeel.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, about = ABOUT, after_help = EXAMPLES, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a sweep on this machine: workers, progress, report. Run again on the same --out, it resumes
    Run(RunArgs),
    /// Say what a spec would run and what that costs; runs nothing
    Plan(PlanArgs),
    /// Print the JSON Schema of the spec, for editors and checks
    Schema,
    /// Serve a cluster: dispatch sweeps to the workers that register
    Coordinator(Box<CoordinatorArgs>),
    /// Hand a sweep to a coordinator
    Submit(SubmitArgs),
    /// List the sweeps a coordinator knows
    List(ClientArgs),
    /// Say how a sweep stands
    Status(SweepArgs),
    /// Follow a sweep until it ends
    Watch(SweepArgs),
    /// Stop a sweep; what is done stays
    Cancel(SweepArgs),
    /// Dispatch no more of a sweep until `resume`
    Pause(SweepArgs),
    /// Go on with a paused or cancelled sweep
    Resume(SweepArgs),
    /// Run the failed trials of a completed sweep again
    Retry(SweepArgs),
    /// Fetch a sweep's output directory: tables, report, summary
    Results(ResultsArgs),
    /// Fetch a sweep's report alone
    Report(ReportArgs),
    /// Compare two sweeps: another model, cluster or version; what changed, and whether it is more than noise
    Compare(CompareArgs),
    /// Show workers, or let one leave
    Workers(WorkersArgs),
    /// Say where the trace of a sweep is: its id, or the address of a page that shows it
    Trace(TraceArgs),
    /// Change which lines a running coordinator, or workers, write into their logs
    LogLevel(LogLevelArgs),
    /// Make certificates for encrypted connections: an authority, and one for each kind of program
    Certs(CertsArgs),
    /// Look whether everything in a store is what was written there, and mend what can be mended
    Fsck(FsckArgs),
    /// Delete ended sweeps by age, and what nobody needs any more
    Gc(GcArgs),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The spec (YAML or JSON)
    pub spec: PathBuf,
    /// Output directory [default: out/<name of the sweep>]
    #[arg(long, env = "EVENKEEL_OUT")]
    pub out: Option<PathBuf>,
    /// Worker processes [default: one a core, or one a GPU]
    #[arg(long, env = "EVENKEEL_WORKERS", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub workers: Option<u32>,
    /// Device of the workers: auto, cpu, cuda or cuda:<index>
    #[arg(long, env = "EVENKEEL_DEVICE", default_value = "auto")]
    pub device: String,
    /// Print the summary as JSON on standard output, and nothing else there
    #[arg(long)]
    pub json: bool,
    /// No progress and no table; errors only
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// The spec (YAML or JSON)
    pub spec: PathBuf,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CoordinatorArgs {
    #[command(flatten)]
    pub etcd: EtcdArgs,
    /// Where results are kept: a directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix (credentials and
    /// endpoint from AWS_…, GOOGLE_… or AZURE_… variables)
    #[arg(long, env = "EVENKEEL_STORE", default_value = "evenkeel-store", value_name = "URL")]
    pub store: String,
    /// Address for gRPC
    #[arg(long, env = "EVENKEEL_LISTEN", default_value = "0.0.0.0:7070")]
    pub listen: SocketAddr,
    /// Address for HTTP: health, metrics, API
    #[arg(long, env = "EVENKEEL_HTTP", default_value = "0.0.0.0:7080")]
    pub http: SocketAddr,
    /// Address that others reach this coordinator at, told in the election [default: host name and port]
    #[arg(long, env = "EVENKEEL_ADVERTISE")]
    pub advertise: Option<String>,
    /// File of tokens, one `ROLE TOKEN` a line (roles: read, submit, admin, worker); without, everybody may do everything
    #[arg(long, env = "EVENKEEL_TOKENS", value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    #[command(flatten)]
    pub tls: TlsArgs,
    /// How long after its end a sweep's segments are compacted; 0s for never
    #[arg(long, env = "EVENKEEL_COMPACT_AFTER", default_value = "60s", value_parser = duration, value_name = "TIME")]
    pub compact_after: Duration,
    /// Most trials of a sweep
    #[arg(long, env = "EVENKEEL_MAX_TRIALS", default_value_t = 100_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub max_trials: u64,
    /// Most sweeps that have not ended
    #[arg(long, env = "EVENKEEL_MAX_SWEEPS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_sweeps: u32,
    /// Most requests a second of one client, by its token or else by its address; twice as many at once
    #[arg(long, env = "EVENKEEL_MAX_REQUESTS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_requests: u32,
    /// Page that shows a trace, with {trace_id} in the place of its id: http://jaeger:16686/trace/{trace_id}
    #[arg(long, env = "EVENKEEL_TRACE_URL", value_name = "URL", value_parser = trace_url)]
    pub trace_url: Option<String>,
    /// Most ordinary packs traced in a minute, where OTEL_… variables name a receiver; those that fail, run again or are slow
    /// always are
    #[arg(long, env = "EVENKEEL_TRACE_PACKS", default_value_t = 60, value_name = "N")]
    pub trace_packs: u32,
    /// How log lines look: text on a terminal and JSON elsewhere, unless said
    #[arg(long, env = "EVENKEEL_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

fn trace_url(text: &str) -> Result<String, String> {
    let place = TraceConfig::PLACE;
    if !text.contains(place) {
        return Err(format!("it has to hold {place}, as in http://jaeger:16686/trace/{place}"));
    }
    let url =
        url::Url::parse(&text.replace(place, "0")).map_err(|error| format!("it is no address: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{}: is no scheme of pages; expected http or https", url.scheme()));
    }
    Ok(text.to_owned())
}

#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    /// Id of the sweep
    #[arg(value_parser = sweep_id)]
    pub id: SweepId,
    /// Open the page in a browser
    #[arg(long)]
    pub open: bool,
    /// Page that shows a trace, where the coordinator was not told: http://jaeger:16686/trace/{trace_id}
    #[arg(long, env = "EVENKEEL_TRACE_URL", value_name = "URL", value_parser = trace_url)]
    pub trace_url: Option<String>,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Args)]
pub(super) struct LogLevelArgs {
    /// What to write from now on: `debug`, or `info,evenkeel_worker=debug` as in RUST_LOG; it lasts until the program starts anew
    pub filter: String,
    /// Of this worker instead of the coordinator that leads; may be given several times
    #[arg(long, value_name = "ID", conflicts_with = "workers")]
    pub worker: Vec<String>,
    /// Of all workers
    #[arg(long)]
    pub workers: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Args)]
pub(super) struct TlsArgs {
    /// Certificates of the authority that peers are recognised by (PEM); a coordinator then lets nobody in without one
    #[arg(long, env = "EVENKEEL_TLS_CA", value_name = "FILE", global = true)]
    pub tls_ca: Option<PathBuf>,
    /// Certificate to show (PEM, with those between it and the authority)
    #[arg(long, env = "EVENKEEL_TLS_CERT", value_name = "FILE", global = true)]
    pub tls_cert: Option<PathBuf>,
    /// Key of that certificate (PEM)
    #[arg(long, env = "EVENKEEL_TLS_KEY", value_name = "FILE", global = true)]
    pub tls_key: Option<PathBuf>,
}

impl TlsArgs {
    pub fn files(&self) -> TlsFiles<'_> {
        TlsFiles {
            cert: self.tls_cert.as_deref(),
            key: self.tls_key.as_deref(),
            ca: self.tls_ca.as_deref(),
            ..TlsFiles::default()
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct CertsArgs {
    /// Directory to put them in; nothing there is overwritten
    #[arg(long)]
    pub out: PathBuf,
    /// How long they are good
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
    /// Names and addresses that coordinators and workers are reached at, beside localhost and this machine's name; *.NAME
    /// stands for all machines below NAME
    #[arg(long, value_name = "NAME", value_delimiter = ',', num_args = 1..)]
    pub host: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    /// The store: a directory, or s3://, gs:// or az:// with bucket and prefix
    #[arg(long, env = "EVENKEEL_STORE", default_value = "evenkeel-store", value_name = "URL")]
    pub store: String,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct FsckArgs {
    /// Look at these sweeps alone [default: the whole store]
    #[arg(value_parser = sweep_id)]
    pub ids: Vec<SweepId>,
    /// Set damaged segments aside (nothing is deleted), and delete what interrupted writes left; best while no coordinator works
    #[arg(long)]
    pub repair: bool,
    #[command(flatten)]
    pub store: StoreArgs,
}

#[derive(Debug, Args)]
pub(super) struct GcArgs {
    /// Delete sweeps that ended longer ago than this (30d, 12h) [default: none]
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub older_than: Option<Duration>,
    /// Keep so many of those that ended last, whatever their age
    #[arg(long, default_value_t = 0, value_name = "N", requires = "older_than")]
    pub keep_last: usize,
    /// Only say what would be deleted
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub store: StoreArgs,
}

#[derive(Debug, Args)]
pub(super) struct ClientArgs {
    /// The coordinator, or several separated by commas: the one that leads is found
    #[arg(
        long,
        env = "EVENKEEL_ENDPOINT",
        default_value = "http://127.0.0.1:7070",
        value_delimiter = ',',
        value_name = "URL",
        global = true
    )]
    pub endpoint: Vec<String>,
    /// File that holds the token to show, readable by you alone [default: the token in EVENKEEL_TOKEN]
    #[arg(long, env = "EVENKEEL_TOKEN_FILE", value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,
    #[command(flatten)]
    pub tls: TlsArgs,
    /// As JSON
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct SubmitArgs {
    /// The spec (YAML or JSON); its feature files are sent along
    pub spec: PathBuf,
    /// Follow it until it ends; the exit code is then that of the sweep
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// An output directory, or the id of a sweep that the coordinator has
    pub a: String,
    /// The other one: differences are B − A, ratios B / A
    pub b: String,
    #[command(flatten)]
    pub client: ClientArgs,
}

fn sweep_id(text: &str) -> Result<SweepId, String> {
    SweepId::parse(text).map_err(|error| error.to_string())
}

#[derive(Debug, Args)]
pub(super) struct SweepArgs {
    /// Id of the sweep
    #[arg(value_parser = sweep_id)]
    pub id: SweepId,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum FormatArg {
    #[default]
    Parquet,
    Csv,
    Jsonl,
}

impl FormatArg {
    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct ResultsArgs {
    /// Id of the sweep
    #[arg(value_parser = sweep_id)]
    pub id: SweepId,
    /// Directory to put them in
    #[arg(long)]
    pub out: PathBuf,
    /// Format of the tables
    #[arg(long, value_enum, default_value_t)]
    pub format: FormatArg,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// Id of the sweep
    #[arg(value_parser = sweep_id)]
    pub id: SweepId,
    /// File to write
    #[arg(long)]
    pub out: PathBuf,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = false)]
pub(super) struct WorkersArgs {
    #[command(subcommand)]
    pub command: Option<WorkersCommand>,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum WorkersCommand {
    /// Who is alive, what they run, how fast
    List,
    /// Let a worker finish what it runs and leave
    Drain {
        /// Id of the worker
        id: String,
    },
}
