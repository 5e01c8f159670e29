//! The helm chart as it is rendered.
//!
//! | module | asks |
//! |---|---|
//! | `accepted` | whether helm and Kubernetes take it, whether it is safe, whether it is the same each time |
//! | `fits` | whether selectors, ports and images fit together |
//! | `given` | whether what pods are given is there: flags, variables, Secrets, volumes, dashboards |
//! | `values` | what a change of values changes, and which values are refused |

mod accepted;
mod fits;
mod given;
mod values;

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use evenkeel_tests::helm::{self, Tools, pod_template};
use serde_json::Value;

/// A set of values and what is rendered with it.
struct Set {
    name: String,
    file: PathBuf,
    values: Value,
    yaml: String,
    objects: Vec<Value>,
}

impl Set {
    /// Every pod that the set makes, with the object that makes it.
    fn pods(&self) -> Vec<(&Value, &Value)> {
        self.objects.iter().filter_map(|object| Some((object, pod_template(object)?))).collect()
    }
}

fn tools() -> Option<Tools> {
    Tools::find().expect("tools")
}

/// All sets of values, rendered by helm 4. None without it.
fn sets() -> Option<&'static [Set]> {
    static SETS: OnceLock<Option<Vec<Set>>> = OnceLock::new();
    let render = || {
        let tools = tools()?;
        let render = |(name, file): (String, PathBuf)| {
            let yaml = tools.template(["--values".as_ref(), file.as_os_str()]);
            let yaml = yaml.unwrap_or_else(|error| panic!("{name}: {error:#}"));
            let objects = helm::objects(&yaml).unwrap_or_else(|error| panic!("{name}: {error:#}"));
            let values = fs::read_to_string(&file).expect("values");
            let values = helm::objects(&values).expect("YAML").pop().unwrap_or_default();
            Set { name, file, values, yaml, objects }
        };
        let sets: Vec<Set> = helm::value_sets().expect("sets").into_iter().map(render).collect();
        assert!(sets.len() >= 12, "only {} sets of values", sets.len());
        Some(sets)
    };
    SETS.get_or_init(render).as_deref()
}

/// Runs a check over all sets. It says what is wrong by calling what it is given.
fn check(faults_of: impl Fn(&Set, &mut dyn FnMut(String))) {
    let Some(sets) = sets() else { return };
    let mut faults = Vec::new();
    for set in sets {
        faults_of(set, &mut |fault| faults.push(format!("{}: {fault}", set.name)));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
