//! The chart, run: its pods are processes with the real programs, in namespaces of their own, as its manifests say.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use evenkeel_tests::helm::{self, NAMESPACE, RELEASE, Tools, chart, find, name, of_kind};
use evenkeel_tests::kubelet::{Cluster, Phase};
use evenkeel_tests::process::{done, printed, run, until};
use evenkeel_tests::results::assert_same_results;
use evenkeel_tests::s3::S3;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(120);

/// A sweep that keeps two cores busy for half a minute, so that a fault has something to hit.
const SPEC: &str = "
apiVersion: evenkeel/v1
name: in-pods
datasets:
  - synthetic: {generator: separable, samples: [60, 120], features: 24, margin: {logspace: [0.2, 2.0, 3]}, instances: 8}
strategies:
  - {name: head, setting: head, steps: 30000, learning_rate: 0.1}
  - {name: mhloss, setting: head, steps: 30000, learning_rate: 0.1, mhloss: {heads: 4}}
seeds: 6
stability: {leave_one_out: 8}
";

/// What the chart makes of some values, in a cluster.
struct Release {
    tools: Tools,
    cluster: Cluster,
    objects: Vec<Value>,
    dir: tempfile::TempDir,
    clients: u32,
}

impl Release {
    /// An empty cluster. None where there can be none.
    fn create() -> Option<Self> {
        let tools = Tools::find().expect("tools")?;
        let exchange = json!({"kind": "PersistentVolumeClaim", "metadata": {"name": "exchange"}});
        let cluster = Cluster::create(NAMESPACE, &[exchange]).expect("cluster")?;
        Some(Self {
            tools,
            cluster,
            objects: Vec::new(),
            dir: tempfile::tempdir().expect("directory"),
            clients: 0,
        })
    }

    /// Renders the chart and gives its objects to the cluster; nothing runs yet.
    fn render(&mut self, args: &[&str]) {
        self.objects = helm::objects(&self.tools.template(args).expect("rendered")).expect("YAML");
        self.cluster.put(&self.objects);
    }

    fn start(&self) {
        self.cluster.start_workloads().expect("start");
        self.cluster.until_ready(LIMIT).expect("ready");
    }

    /// Runs what `helm test` runs.
    fn test(&self) {
        let pod = find(&self.objects, "Pod", &format!("{RELEASE}-test")).expect("a test");
        let (phase, said) = self.cluster.run(pod, LIMIT).expect("the test ends");
        assert_eq!(phase, Phase::Succeeded, "{said}\n{}", self.logs());
        assert!(said.contains("8 of 8 trials completed"), "{said}");
    }

    /// Runs a script in a pod that is as the one of `helm test` otherwise, with a directory /exchange.
    fn client(&mut self, script: &str) -> (Phase, String) {
        self.clients += 1;
        let mut pod = find(&self.objects, "Pod", &format!("{RELEASE}-test")).expect("a test").clone();
        pod["metadata"]["name"] = json!(format!("client-{}", self.clients));
        let spec = &mut pod["spec"];
        let volume = json!({"name": "exchange", "persistentVolumeClaim": {"claimName": "exchange"}});
        spec["volumes"].as_array_mut().expect("volumes").push(volume);
        let mount = json!({"name": "exchange", "mountPath": "/exchange"});
        spec["containers"][0]["volumeMounts"].as_array_mut().expect("mounts").push(mount);
        spec["containers"][0]["args"] = json!([script]);
        self.cluster.run(&pod, LIMIT).expect("the client ends")
    }

    /// The same, when it has to succeed.
    fn asked(&mut self, script: &str) -> String {
        let (phase, said) = self.client(script);
        assert_eq!(phase, Phase::Succeeded, "{script}: {said}\n{}", self.logs());
        said.trim().to_owned()
    }

    fn list(&mut self) -> Value {
        let said = self.asked("evenkeel list --json");
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// Name, id and completed trials of all sweeps.
    fn sweeps(&mut self) -> Vec<(String, String, u64)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        helm::items(&self.list()["sweeps"])
            .map(|it| (text(&it["name"]), text(&it["id"]), it["completed"].as_u64().unwrap_or(0)))
            .collect()
    }

    fn exchange(&self) -> PathBuf {
        self.cluster.claim("exchange")
    }

    fn durable(&mut self, sweep: &str) -> u64 {
        let said = self.asked(&format!("evenkeel status {sweep} --json"));
        done(&serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}")))
    }

    /// Waits for the end of a sweep, and compares its results with those of a calm run on this machine.
    fn check(&mut self, sweep: &str, spec: &str) {
        let watched =
            self.asked(&format!("evenkeel watch {sweep} >/dev/null 2>&1 && evenkeel status {sweep} --json"));
        let view: Value = serde_json::from_str(&watched).expect("status");
        assert_eq!(view["failed"], 0, "{view}");
        self.asked(&format!("evenkeel results {sweep} --out /exchange/results"));
        let (file, calm) = (self.dir.path().join("spec.yaml"), self.dir.path().join("calm"));
        fs::write(&file, spec).expect("write");
        let output =
            run(["run", &file.to_string_lossy(), "--out", &calm.to_string_lossy(), "--device", "cpu"]);
        let output = output.expect("run");
        assert!(output.status.success(), "{}", printed(&output));
        assert_same_results(&calm, &self.exchange().join("results"));
    }

    /// Whatever the pods said, for who reads of a failure.
    fn logs(&self) -> String {
        let sets = of_kind(&self.objects, "StatefulSet").flat_map(|set| self.cluster.pods(name(set)));
        sets.map(|pod| format!("--- {pod}: {:?}\n{}\n", self.cluster.status(&pod), self.cluster.log(&pod)))
            .collect()
    }

    /// Fails when a pod had to be started again.
    fn assert_steady(&self) {
        for set in of_kind(&self.objects, "StatefulSet") {
            for pod in self.cluster.pods(name(set)) {
                let status = self.cluster.status(&pod).expect("status");
                assert!(
                    status.ready && status.restarts == 0,
                    "{pod}: {status:?}\n{}",
                    self.cluster.log(&pod)
                );
            }
        }
    }
}

#[test]
fn a_fresh_installation_computes_and_keeps_its_results_over_a_restart() {
    let Some(mut release) = Release::create() else { return };
    release.render(&[]);
    release.start();
    release.test();
    release.assert_steady();
    let before = release.sweeps();
    assert!(before.len() == 1 && before[0].0.starts_with("helm-test-"), "{before:?}");

    // Without the token nobody gets in.
    let (phase, said) = release.client("unset EVENKEEL_TOKEN_FILE; evenkeel list");
    assert_eq!(phase, Phase::Failed, "{said}");
    assert!(said.to_lowercase().contains("token"), "{said}");

    let coordinator = "evenkeel-coordinator-0";
    let address = release.cluster.address(coordinator).expect("address");
    release.cluster.delete(coordinator).expect("delete");
    assert_ne!(
        release.cluster.address(coordinator).expect("address"),
        address,
        "a new pod has a new address"
    );
    let left = release.cluster.status(coordinator).expect("status");
    release.cluster.until_ready(LIMIT).unwrap_or_else(|error| panic!("{left:?}: {error:#}"));
    assert_eq!(release.sweeps(), before);
    release.test();
}

/// Two coordinators, three members of etcd, certificates and tokens, all of the chart's, and S3 of this machine.
fn highly_available(more: &[&str]) -> Option<(Release, S3)> {
    if std::env::var_os("ETCD_BIN").is_none() {
        eprintln!("skipped: there is no etcd here (ETCD_BIN names none); `make test` gets one");
        return None;
    }
    let mut release = Release::create()?;
    let s3 = S3::start_at(release.dir.path(), &release.cluster.gateway()).expect("S3")?;
    // A name without a dot: this server takes what is before one for the name of a bucket.
    release.cluster.add_host("storage", &release.cluster.gateway()).expect("hosts");
    let keys = json!({"AWS_ACCESS_KEY_ID": S3::KEY, "AWS_SECRET_ACCESS_KEY": S3::SECRET});
    release
        .cluster
        .put(&[json!({"kind": "Secret", "metadata": {"name": "s3-credentials"}, "stringData": keys})]);
    let (values, endpoint) = (
        chart().join("ci/ha-generated-tls.yaml"),
        format!("store.env.AWS_ENDPOINT=http://storage:{}", s3.port()),
    );
    let values = values.to_string_lossy();
    let args = ["--values", values.as_ref(), "--set", &endpoint, "--set", "store.url=s3://evenkeel/lab"];
    release.render(&[&args, more].concat());
    Some((release, s3))
}

#[test]
fn a_sweep_survives_the_loss_of_workers_and_of_the_leader_and_gives_the_same_results() {
    let spec = helm::objects(SPEC).expect("YAML").pop().expect("a spec");
    let specs = format!("sweeps.specs=[{spec}]");
    let Some((mut release, _s3)) =
        highly_available(&["--set-json", &specs, "--set", "workers.cpu.replicas=3"])
    else {
        return;
    };
    release.start();
    release.test();
    release.assert_steady();

    // The job that submits sweeps may run as often as it likes.
    let job = of_kind(&release.objects, "Job").next().expect("a job").clone();
    for _ in 0..2 {
        let (phase, said) = release.cluster.run(&job, LIMIT).expect("the job ends");
        assert_eq!(phase, Phase::Succeeded, "{said}\n{}", release.logs());
    }
    let sweeps = release.sweeps();
    let ours: Vec<_> = sweeps.iter().filter(|(name, _, _)| name == "in-pods").collect();
    assert_eq!(ours.len(), 1, "{sweeps:?}");
    let sweep = ours[0].1.clone();

    let trials = helm::items(&release.list()["sweeps"])
        .find(|it| it["id"] == sweep.as_str())
        .and_then(|it| it["trials"].as_u64())
        .expect("trials");

    // A worker leaves, and takes nothing along.
    until("first results", LIMIT, || (release.durable(&sweep) > 0).then_some(())).expect("results");
    release.cluster.scale("evenkeel-worker-cpu", 2).expect("scale");
    let left = release.cluster.status("evenkeel-worker-cpu-2").expect("status").left.expect("it left");
    assert!(!left.1, "it was killed after {:?}: {}", left.0, release.cluster.log("evenkeel-worker-cpu-2"));

    // Another dies, and is started again.
    release.cluster.kill("evenkeel-worker-cpu-0").expect("kill");
    until("the worker to be started again", LIMIT, || {
        let status = release.cluster.status("evenkeel-worker-cpu-0")?;
        (status.restarts == 1 && status.ready).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", release.logs()));

    // Then the leader is taken away.
    let leads = |release: &Release, pod: &str| release.cluster.log(pod).contains("store loaded");
    let coordinators = release.cluster.pods("evenkeel-coordinator");
    let (leaders, others): (Vec<String>, Vec<String>) =
        coordinators.into_iter().partition(|pod| leads(&release, pod));
    let ([leader], [other]) = (&leaders[..], &others[..]) else {
        panic!("{leaders:?} lead\n{}", release.logs());
    };
    release.cluster.delete(leader).expect("delete");
    until("the other to lead", LIMIT, || leads(&release, other).then_some(()))
        .unwrap_or_else(|error| panic!("{error}\n{}", release.logs()));
    assert!(release.durable(&sweep) < trials, "it was over before the leader was gone");
    release.cluster.until_ready(LIMIT).expect("ready");
    release.check(&sweep, SPEC);
    release.test();
}
