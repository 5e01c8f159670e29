use super::*;

/// A spec in which every line stands for something that tests change.
const GOOD: &str = "apiVersion: evenkeel/v1
name: margin-test
datasets:
  - synthetic: {generator: separable, samples: [50, 100], features: 64, margin: {logspace: [0.1, 4.0, 5]}}
  - features: {path: digits.parquet, label: target}
strategies:
  - {name: head, setting: head, steps: 100, learning_rate: 0.5}
  - {name: mhloss, setting: head, steps: 100, learning_rate: 0.5, mhloss: {heads: [5, 50]}}
seeds: 10
stability: {leave_one_out: 20}
baseline: head
";

fn parse(text: &str) -> Result<Spec, SpecError> {
    Spec::parse("spec.yaml", text)
}

fn good() -> Spec {
    parse(GOOD).unwrap_or_else(|error| panic!("{error}"))
}

/// Changes one piece of the good spec, which must be there, and expects this error.
#[track_caller]
fn check(from: &str, to: &str, expected: &str) {
    assert!(GOOD.contains(from), "{from:?} is not in the spec");
    let error = parse(&GOOD.replacen(from, to, 1)).expect_err("accepted").to_string();
    assert_eq!(error, expected, "with {to:?}");
}

#[test]
fn an_unknown_field_is_refused_with_the_nearest_one() {
    check(
        "margin: {",
        "margn: {",
        "spec.yaml:4: datasets[0].synthetic.margn: unknown field `margn`; allowed: `name`, `generator`, `samples`, `features`, \
         `classes`, `test_samples`, `instances`, `margin`, `noise`, `max_norm`, `informative`, `redundant`, `repeated`, \
         `clusters_per_class`, `class_sep`, `flip_y`, `hypercube`, `cluster_std`, `center_box`, `factor`, `units`, \
         `vocabulary`, `length`, `topics`, `topic_strength`\n  did you mean `margin`?",
    );
    check(
        "baseline: head",
        "basline: head",
        "spec.yaml:11: basline: unknown field `basline`; allowed: `apiVersion`, `name`, `description`, `datasets`, `models`, \
         `strategies`, `seeds`, `sweep_seed`, `stability`, `baseline`, `retries`, `priority`, `predictions`\n  did you mean `baseline`?",
    );
    check(
        "- synthetic: {",
        "- synthetics: {",
        "spec.yaml:4: datasets[0].synthetics: unknown kind `synthetics`; allowed: `synthetic`, `features`, `text`\n  did you mean `synthetic`?",
    );
    check(
        "generator: separable",
        "generator: seperable",
        "spec.yaml:4: datasets[0].synthetic.generator: found \"seperable\"; allowed: `separable`, `classification`, `blobs`, \
         `moons`, `circles`, `xor`, `teacher`, `token_sequences`\n  did you mean `separable`?",
    );
    check(
        "baseline: head",
        "baseline: haed",
        "spec.yaml:11: baseline: no strategy is named \"haed\"; allowed: `head`, `mhloss`\n  did you mean `head`?",
    );
    check(
        "heads: [5, 50]",
        "zzz: [5, 50]",
        "spec.yaml:8: strategies[1].mhloss.zzz: unknown field `zzz`; allowed: `heads`, `reduction`",
    );
}

#[test]
fn a_wrong_type_is_refused_with_what_was_found() {
    let axis = "a list, or one of {range: [a, b, step]}, {linspace: [a, b, n]}, {logspace: [a, b, n]}";
    check(
        "features: 64",
        "features: many",
        &format!(
            "spec.yaml:4: datasets[0].synthetic.features: found \"many\", expected a whole number, {axis}"
        ),
    );
    check(
        "steps: 100",
        "steps: 1.5",
        &format!("spec.yaml:7: strategies[0].steps: found `1.5`, expected a whole number, {axis}"),
    );
    check(
        "steps: 100",
        "steps: -1",
        &format!("spec.yaml:7: strategies[0].steps: found `-1`, expected a whole number, {axis}"),
    );
    check(
        "seeds: 10",
        "seeds: ten",
        "spec.yaml:9: seeds: found \"ten\", expected how many seeds (a whole number), or a list of seeds",
    );
    check(
        "leave_one_out: 20",
        "leave_one_out: none",
        "spec.yaml:10: stability.leave_one_out: found \"none\", expected a whole number of points to leave out, or `all`",
    );
    check(
        "  - {name: head, setting: head, steps: 100, learning_rate: 0.5}\n",
        "  - head\n",
        "spec.yaml:7: strategies[0]: found \"head\", expected a mapping with the fields `name`, `setting`, `steps`, \
         `epochs`, `learning_rate`, `optimizer`, `momentum`, `weight_decay`, `bias`, `init_std`, `data_perturbation`, \
         `batch_size`, `accumulation`, `schedule`, `warmup`, `clip`, `dropout`, `precision`, `length_buckets`, \
         `gradient_checkpointing`, `evaluate_every`, `select`, `early_stopping`, `mhloss`, `mmr`, `surt`, `l2_sp`, `mixout`, \
         `lnsr`, `child_tuning`, `reinit`, `llrd`, `lora`, `checkpoints`, `seed_controls`",
    );
    check(
        "evenkeel/v1",
        "evenkeel/v2",
        "spec.yaml:1: apiVersion: found \"evenkeel/v2\"; allowed: `evenkeel/v1`\n  did you mean `evenkeel/v1`?",
    );
}

#[test]
fn a_missing_or_doubled_field_is_named() {
    check("seeds: 10\n", "", "spec.yaml:1: field `seeds` is missing");
    check(
        "steps: 100, learning_rate: 0.5, mhloss",
        "learning_rate: 0.5, mhloss",
        "spec.yaml:8: strategies[1].steps: is missing: `setting: head` takes a number of steps",
    );
    let error = parse(&format!("{GOOD}seeds: 3\n")).expect_err("accepted").to_string();
    assert!(error.starts_with("spec.yaml:12") && error.contains("seeds"), "{error}");
}

#[test]
fn an_empty_axis_or_list_makes_no_grid_and_is_refused() {
    check(
        "samples: [50, 100]",
        "samples: []",
        "spec.yaml:4: datasets[0].synthetic.samples: is an empty list, so the grid has no trial; allowed: at least one value",
    );
    check(
        "{logspace: [0.1, 4.0, 5]}",
        "{linspace: [0.1, 4.0, 0]}",
        "spec.yaml:4: datasets[0].synthetic.margin: is an empty list, so the grid has no trial; allowed: at least one value",
    );
    check(
        "seeds: 10",
        "seeds: 0",
        "spec.yaml:9: seeds: is empty, so the grid has no trial; allowed: at least one",
    );
    check(
        "seeds: 10",
        "seeds: []",
        "spec.yaml:9: seeds: is empty, so the grid has no trial; allowed: at least one",
    );
    let (start, end) = (GOOD.find("strategies:").unwrap_or(0), GOOD.find("seeds:").unwrap_or(0));
    check(
        &GOOD[start..end],
        "strategies: []\n",
        "spec.yaml:6: strategies: is empty, so the grid has no trial; allowed: at least one",
    );
}

#[test]
fn a_combination_that_cannot_work_is_refused_with_the_reason() {
    check(
        "mhloss: {heads: [5, 50]}",
        "mmr: {alpha: 0.5}",
        "spec.yaml:8: strategies[1].mmr: cannot work with `setting: head`: the regulariser depends on the features alone, and \
         with a frozen encoder its gradient is zero, so it would change nothing",
    );
    check(
        "setting: head, steps: 100, learning_rate: 0.5}",
        "setting: full, steps: 100, learning_rate: 0.5}",
        "spec.yaml:7: strategies[0].setting: `full` fine-tuning needs encoders with weights, and `identity` has none; name a model \
         under `models`",
    );
    check(
        "generator: separable",
        "generator: blobs",
        "spec.yaml:4: datasets[0].synthetic.margin: belongs to the generator `separable`, not to `blobs`",
    );
    check(
        "learning_rate: 0.5}",
        "learning_rate: 0.5, momentum: 0.9}",
        "spec.yaml:7: strategies[0].momentum: has no effect without `optimizer: momentum`",
    );
    check(
        "learning_rate: 0.5}",
        "learning_rate: 0.5, checkpoints: [10, 200]}",
        "spec.yaml:7: strategies[0].checkpoints: found 200; allowed: steps from 1 to the fewest steps of this strategy, 100",
    );
    check(
        "path: digits.parquet, label: target",
        "path: digits.npy, label: target",
        "spec.yaml:5: datasets[1].features.labels: is missing: an .npy file of features needs one of classes beside it",
    );
    check(
        "path: digits.parquet, label: target",
        "path: digits.csv",
        "spec.yaml:5: datasets[1].features.label: is missing: name the column that holds the class",
    );
}

const TEXTS: &str = "\
apiVersion: evenkeel/v1
name: texts
datasets:
  - text: {task: glue/rte, path: data/RTE}
  - text: {path: own.csv, text: sentence, label: class}
models:
  - {encoder: huggingface, path: models/minilm}
strategies:
  - {name: full, setting: full, epochs: 3, learning_rate: 2.0e-5}
  - {name: mmr, setting: full, epochs: 3, learning_rate: 2.0e-5, mmr: {alpha: 0.5}}
seeds: 10
";

fn check_texts(from: &str, to: &str, expected: &str) {
    assert!(TEXTS.contains(from), "{from}");
    let error = parse(&TEXTS.replacen(from, to, 1)).expect_err("accepted").to_string();
    assert_eq!(error, expected, "with {to:?}");
}

#[test]
fn a_full_strategy_says_its_defaults_in_the_canonical_form() {
    let spec = parse(TEXTS).unwrap_or_else(|error| panic!("{error}"));
    let json: serde_json::Value = serde_json::from_str(&spec.to_canonical_json()).expect("json");
    let strategy = &json["strategies"][0];
    for (field, expected) in [
        ("optimizer", serde_json::json!("adamw")),
        ("batch_size", serde_json::json!(16)),
        ("warmup", serde_json::json!(0.1)),
        ("clip", serde_json::json!(1.0)),
        ("weight_decay", serde_json::json!(0.01)),
        ("bias", serde_json::json!(true)),
        ("schedule", serde_json::json!("linear")),
    ] {
        assert_eq!(strategy[field], expected, "{field}");
    }
    let again = parse(&spec.to_canonical_json()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again, spec);
}

#[test]
fn texts_and_strategies_that_do_not_fit_each_other_are_refused() {
    check_texts(
        "task: glue/rte",
        "task: glue/rtee",
        "spec.yaml:4: datasets[0].text.task: found \"glue/rtee\"; allowed: glue/cola, glue/sst2, glue/mrpc, glue/qqp, \
         glue/mnli, glue/mnli_mismatched, glue/qnli, glue/rte, glue/wnli, superglue/boolq, superglue/cb, superglue/copa, \
         superglue/wic, superglue/wsc, superglue/multirc\n  did you mean `glue/rte`?",
    );
    check_texts(
        "encoder: huggingface, path: models/minilm",
        "encoder: identity",
        "spec.yaml:7: models[0].encoder: `identity` reads feature vectors, not the texts of datasets[0]; they need `huggingface`, in a \
         sweep of their own",
    );
    check_texts(", label: class}", "}", "spec.yaml:5: datasets[1].text.label: is missing: name the column");
    check_texts(
        "epochs: 3, learning_rate: 2.0e-5, mmr",
        "epochs: 3, steps: 10, learning_rate: 2.0e-5, mmr",
        "spec.yaml:10: strategies[1].epochs: and `steps` both say how long to train; leave one out",
    );
    check_texts(
        "mmr: {alpha: 0.5}",
        "lora: {rank: 4}, mixout: {p: 0.5}",
        "spec.yaml:10: strategies[1].mixout: cannot work with `lora`, which keeps the encoder's own weights where they are",
    );
    check_texts(
        "mmr: {alpha: 0.5}",
        "optimizer: gd",
        "spec.yaml:10: strategies[1].optimizer: found `gd` with `setting: full`; allowed: `adamw`, `sgd`",
    );
    let text = TEXTS
        .replace("mmr: {alpha: 0.5}", "select: best")
        .replace("label: class}", "label: class, validation_fraction: 0}");
    assert_eq!(
        parse(&text).expect_err("accepted").to_string(),
        "spec.yaml:5: datasets[1].text.validation_fraction: found 0, but strategies[1] looks at the validation set \
         (`select: best` or `early_stopping`)",
    );
}

#[test]
fn a_value_out_of_range_or_given_twice_is_refused() {
    check(
        "learning_rate: 0.5}",
        "learning_rate: [0.5, 0]}",
        "spec.yaml:7: strategies[0].learning_rate: found 0; allowed: a number above 0, at most 1000000",
    );
    check(
        "samples: [50, 100]",
        "samples: [50, 3]",
        "spec.yaml:4: datasets[0].synthetic.samples: found 3; allowed: a whole number from 4 to 10000000",
    );
    check(
        "samples: [50, 100]",
        "samples: [50, 100, 50]",
        "spec.yaml:4: datasets[0].synthetic.samples: 50 appears twice, which would run the same trials twice",
    );
    check("seeds: 10", "seeds: [1, 2, 1]", "spec.yaml:9: seeds: seed 1 appears twice");
    check(
        "name: mhloss",
        "name: head",
        "spec.yaml:8: strategies[1].name: \"head\" is the name of an earlier strategy; names must differ",
    );
    check(
        "name: margin-test",
        "name: Margin Test",
        "spec.yaml:2: name: found \"Margin Test\"; allowed: 1 to 60 lower-case letters, digits and dashes, not beginning with a dash",
    );
    check(
        "leave_one_out: 20",
        "leave_one_out: 0",
        "spec.yaml:10: stability.leave_one_out: found 0; allowed: 1 or more, or `all`; leave it out for none",
    );
    check(
        "leave_one_out: 20",
        "representations: 3",
        "spec.yaml:10: stability.representations: found 3; allowed: a whole number from 4 to 1024",
    );
    check(
        "leave_one_out: 20",
        "representations: 64",
        "spec.yaml:10: stability.representations: has no effect: no strategy trains the encoder (`setting: full`), so the \
         features of all seeds are the same",
    );
}

#[test]
fn what_is_kept_of_predictions_is_told_in_three_words() {
    let kept = |word: &str| {
        let text = GOOD.replace("stability:", &format!("predictions: {word}\nstability:"));
        parse(&text).map(|spec| (spec.predictions, spec.to_canonical_yaml())).map_err(|e| e.to_string())
    };
    for (word, expected) in [
        ("false", Predictions::None),
        ("true", Predictions::Classes),
        ("probabilities", Predictions::Probabilities),
    ] {
        let (found, canonical) = kept(word).expect("a spec");
        assert_eq!(found, expected);
        assert!(canonical.contains(&format!("predictions: {word}")), "{canonical}");
    }
    let error = kept("logits").expect_err("accepted");
    assert!(
        error.contains("predictions: found \"logits\", expected `true`, `false` or `probabilities`"),
        "{error}"
    );
}

#[test]
fn what_is_no_document_is_refused_with_its_line() {
    let error = parse("name: [1, 2\nseeds: 3\n").expect_err("accepted").to_string();
    assert!(error.starts_with("spec.yaml:") && error.contains("not valid YAML or JSON"), "{error}");
    let error = parse("").expect_err("accepted").to_string();
    assert!(error.starts_with("spec.yaml"), "{error}");
    let error = parse("[1, 2]").expect_err("accepted").to_string();
    assert!(error.contains("found a list, expected a mapping with the fields `apiVersion`"), "{error}");
    let error = parse(&" ".repeat(MAX_SPEC_BYTES + 1)).expect_err("accepted").to_string();
    assert!(error.contains("at most 4194304 are read"), "{error}");
}

#[test]
fn no_nesting_or_alias_makes_parsing_endless() {
    let deep = "[".repeat(200_000);
    assert!(parse(&deep).is_err());
    // Each anchor holds nine of the one before: 9^12 values if they were written out.
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let below = format!("*a{}, ", level - 1).repeat(9);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", below.trim_end_matches(", ")));
    }
    assert!(parse(&bomb).is_err());
}

#[test]
fn the_canonical_form_is_read_back_as_the_same_spec() {
    let spec = good();
    assert_eq!(parse(&spec.to_canonical_yaml()).expect("yaml"), spec);
    assert_eq!(parse(&spec.to_canonical_json()).expect("json"), spec);
    assert_eq!(parse(&spec.to_canonical_json()).expect("json").to_canonical_json(), spec.to_canonical_json());
}

#[test]
fn yaml_and_json_of_the_same_spec_have_one_identity() {
    let json = r#"{"apiVersion": "evenkeel/v1", "name": "margin-test", "datasets": [
        {"synthetic": {"generator": "separable", "samples": [50, 100], "features": 64, "margin": {"logspace": [0.1, 4.0, 5]}, "classes": 2}},
        {"features": {"path": "digits.parquet", "label": "target"}}],
        "strategies": [{"name": "head", "setting": "head", "steps": 100, "learning_rate": 0.5, "weight_decay": 0.0},
        {"name": "mhloss", "setting": "head", "steps": 100, "learning_rate": 0.5, "mhloss": {"heads": [5, 50], "reduction": "mean"}}],
        "seeds": 10, "stability": {"leave_one_out": 20}, "models": [{"encoder": "identity"}]}"#;
    assert_eq!(parse(json).unwrap_or_else(|error| panic!("{error}")).identity(), good().identity());
}

#[test]
fn only_what_is_computed_decides_the_identity() {
    let id =
        |text: &str| parse(text).unwrap_or_else(|error| panic!("{error}")).sweep_id(&[ContentHash([7; 32])]);
    let same = id(GOOD);
    assert!(
        same.as_str().starts_with("margin-test-") && same.as_str().len() == "margin-test-".len() + 10,
        "{same}"
    );
    for (from, to) in [
        ("seeds: 10", "description: words\nseeds: 10"),
        ("baseline: head", "baseline: mhloss"),
        ("seeds: 10", "priority: 7\nretries: {max_attempts: 9}\nseeds: 10"),
    ] {
        assert_eq!(id(&GOOD.replacen(from, to, 1)), same, "{to}");
    }
    for (from, to) in [
        ("seeds: 10", "seeds: 11"),
        ("seeds: 10", "sweep_seed: 1\nseeds: 10"),
        ("steps: 100", "steps: 101"),
        ("leave_one_out: 20", "leave_one_out: all"),
        ("margin-test", "margin-test-2"),
    ] {
        assert_ne!(id(&GOOD.replacen(from, to, 1)), same, "{to}");
    }
    assert_ne!(good().sweep_id(&[ContentHash([8; 32])]), same);
}

#[test]
fn the_json_schema_names_every_field_and_refuses_others() {
    let schema = json_schema();
    let spec: serde_json::Value = serde_json::from_str(&good().to_canonical_json()).expect("json");
    assert_eq!(accepts(&schema, &schema, &spec), Ok(()));
    let raw = serde_json::json!({
        "apiVersion": "evenkeel/v1", "name": "n", "seeds": [1, 2],
        "datasets": [{"synthetic": {"generator": "blobs", "samples": {"range": [50, 100, 10]}, "features": 4}}],
        "strategies": [{"name": "head", "setting": "head", "steps": [1, 2], "learning_rate": {"logspace": [0.1, 1, 3]}}],
        "stability": {"leave_one_out": "all"},
    });
    assert_eq!(accepts(&schema, &schema, &raw), Ok(()));
    for (pointer, value) in [
        ("/seeds", serde_json::json!("ten")),
        ("/datasets/0/synthetic/samples", serde_json::json!({"steps": [1, 2, 3]})),
        ("/strategies/0/setting", serde_json::json!("heads")),
        ("/strategies/0", serde_json::json!({"name": "head", "setting": "head", "steps": 1})),
        ("/stability", serde_json::json!({"leave_one": 3})),
    ] {
        let mut bad = raw.clone();
        *bad.pointer_mut(pointer).expect("pointer") = value;
        assert!(accepts(&schema, &schema, &bad).is_err(), "the schema accepts {bad}");
    }
}

/// As much of JSON Schema as the spec's schema uses.
fn accepts(
    root: &serde_json::Value,
    schema: &serde_json::Value,
    value: &serde_json::Value,
) -> Result<(), String> {
    use serde_json::Value;
    let refuse = |why: &str| Err(format!("{value}: {why}"));
    if let Some(pointer) = schema.get("$ref").and_then(Value::as_str) {
        let target = root.pointer(pointer.trim_start_matches('#')).ok_or("a reference to nowhere")?;
        accepts(root, target, value)?;
    }
    for key in ["anyOf", "oneOf"] {
        let forms = schema.get(key).and_then(Value::as_array);
        if forms.is_some_and(|forms| !forms.iter().any(|form| accepts(root, form, value).is_ok())) {
            return refuse(key);
        }
    }
    if schema.get("const").is_some_and(|expected| expected != value) {
        return refuse("const");
    }
    if schema.get("enum").and_then(Value::as_array).is_some_and(|all| !all.contains(value)) {
        return refuse("enum");
    }
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is = |name: &&str| match *name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        _ => false,
    };
    if !types.is_empty() && !types.iter().any(is) {
        return refuse("type");
    }
    if let (Some(items), Some(schema)) = (value.as_array(), schema.get("items")) {
        items.iter().try_for_each(|item| accepts(root, schema, item))?;
    }
    if let Some(fields) = value.as_object() {
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if name.as_str().is_none_or(|name| !fields.contains_key(name)) {
                return refuse("required");
            }
        }
        for (name, field) in fields {
            match schema.get("properties").and_then(|properties| properties.get(name)) {
                Some(schema) => accepts(root, schema, field)?,
                None if schema.get("additionalProperties") == Some(&Value::Bool(false)) => {
                    return refuse(name);
                }
                None => {}
            }
        }
    }
    Ok(())
}

const SMALL: &str = "\
apiVersion: evenkeel/v1
name: small
datasets:
  - synthetic: {generator: xor, samples: 100, features: 4}
models:
  - {encoder: mlp, hidden: 32}
strategies:
  - {name: full, setting: full, epochs: 3, learning_rate: 0.001}
seeds: 2
";

#[test]
fn small_encoders_are_checked_against_what_they_read() {
    parse(SMALL).expect("a good spec");
    let check = |from: &str, to: &str, expected: &str| {
        assert!(SMALL.contains(from), "{from}");
        let error = parse(&SMALL.replacen(from, to, 1)).expect_err("accepted").to_string();
        assert_eq!(error, format!("spec.yaml:{expected}"), "with {to:?}");
    };
    check(
        "encoder: mlp, hidden: 32",
        "encoder: transformer",
        "6: models[0].encoder: `transformer` reads sequences of tokens, not the feature vectors of datasets[0]; they need `identity` or \
         `mlp`, in a sweep of their own",
    );
    check(
        "generator: xor, samples: 100, features: 4",
        "generator: token_sequences, samples: 100",
        "6: models[0].encoder: `mlp` reads feature vectors, not the sequences of tokens of datasets[0]; they need `transformer`, in a \
         sweep of their own",
    );
    check("hidden: 32", "attention_heads: 4", "6: models[0].attention_heads: is for `encoder: transformer`");
    check(
        "hidden: 32",
        "pretrain: {mask: 0}",
        "6: models[0].pretrain.mask: found 0; allowed: a number above 0, at most 0.9",
    );
    check("hidden: 32", "path: x", "6: models[0].path: is for `encoder: huggingface`");
    check(", features: 4", "", "4: datasets[0].synthetic.features: is missing: the number of features");
    check(
        "features: 4",
        "features: 4, informative: 5",
        "4: datasets[0].synthetic.features: found 4, fewer than the 5 informative ones",
    );
    check(
        "features: 4",
        "features: 4, classes: 3",
        "4: datasets[0].synthetic.classes: found 3; allowed: a whole number from 2 to 2",
    );
    check(
        "features: 4",
        "features: 4, flip_y: 0.1",
        "4: datasets[0].synthetic.flip_y: belongs to the generators `classification`, `teacher`, `token_sequences`, not to `xor`",
    );
    let tokens = SMALL
        .replace("generator: xor, samples: 100, features: 4", "generator: token_sequences, samples: 100")
        .replace("encoder: mlp, hidden: 32", "encoder: transformer, hidden: 30");
    let error = |text: &str| parse(text).expect_err("accepted").to_string();
    assert_eq!(
        error(&tokens),
        "spec.yaml:6: models[0].attention_heads: found 4, which does not divide hidden: 30"
    );
    assert_eq!(
        error(&tokens.replace("hidden: 30", "pooling: pooler")),
        "spec.yaml:6: models[0].pooling: found `pooler`, which only files from elsewhere have; allowed: `mean`, `cls`"
    );
    assert_eq!(
        error(&tokens.replace("samples: 100", "samples: 100, classes: 9")),
        "spec.yaml:4: datasets[0].synthetic.classes: found 9, but a class has at least one of the 8 topics"
    );
    assert_eq!(
        error(&tokens.replace("samples: 100", "samples: 100, features: 9")),
        "spec.yaml:4: datasets[0].synthetic.features: sequences of tokens have none; leave it out"
    );
    let best = SMALL
        .replace(
            "synthetic: {generator: xor, samples: 100, features: 4}",
            "features: {path: a.csv, label: y}",
        )
        .replace("epochs: 3", "epochs: 3, select: best");
    assert_eq!(
        error(&best),
        "spec.yaml:8: strategies[0]: looks at the validation set (`select: best` or `early_stopping`), but the feature file of \
         datasets[0] has none"
    );
}
