//! Encoders beside transformers (`scripts/golden_models.py` made the expected values), and what they must not depend on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use evenkeel_worker::models::{
    Batch, EncoderConfig, Group, MlmHead, ModelError, Noise, Pooling, Quiet, Transformer, has_pooler, load,
    load_mlm_head,
};
use tch::{Kind, TchError, Tensor};

const FAMILIES: [&str; 4] = ["bert", "roberta", "electra", "albert"];

fn place(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(file)
}

/// One family's files.
struct Golden {
    model: Transformer,
    bytes: Vec<u8>,
    tensors: BTreeMap<String, Tensor>,
}

impl Golden {
    fn read(family: &str) -> Self {
        let json = std::fs::read(place(&format!("{family}.json"))).unwrap();
        let path = place(&format!("{family}.safetensors"));
        Self {
            model: Transformer::new(EncoderConfig::parse("config.json", &json).unwrap()),
            bytes: std::fs::read(&path).unwrap(),
            tensors: Tensor::read_safetensors(path).unwrap().into_iter().collect(),
        }
    }

    fn config(&self) -> &EncoderConfig {
        self.model.config()
    }

    fn get(&self, name: &str) -> &Tensor {
        self.tensors.get(&format!("golden.{name}")).unwrap_or_else(|| panic!("no golden.{name}"))
    }

    fn with_pooler(&self) -> bool {
        has_pooler(self.config(), "model", &self.bytes).unwrap()
    }

    fn parameters(&self) -> Vec<Tensor> {
        load(self.config(), "model", &self.bytes, self.with_pooler()).unwrap()
    }

    fn mlm_head(&self) -> MlmHead {
        load_mlm_head(self.config(), "model", &self.bytes).unwrap().expect("a head")
    }

    fn batch(&self) -> Batch {
        Batch::new(self.get("ids"), self.get("types"), self.get("mask")).unwrap()
    }

    fn poolings(&self) -> Vec<Pooling> {
        if self.with_pooler() {
            vec![Pooling::Mean, Pooling::Cls, Pooling::Pooler]
        } else {
            vec![Pooling::Mean, Pooling::Cls]
        }
    }

    /// A file with some of its tensors changed or left out.
    fn rewritten(&self, change: impl Fn(&str, &Tensor) -> Option<Tensor>) -> Vec<u8> {
        let tensors: Vec<(&str, Tensor)> = self
            .tensors
            .iter()
            .filter_map(|(name, tensor)| Some((name.as_str(), change(name, tensor)?)))
            .collect();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.safetensors");
        Tensor::write_safetensors(&tensors, &path).unwrap();
        std::fs::read(path).unwrap()
    }
}

/// Disturbs nothing, but has the encoder take the path of training, and writes down what it was asked for.
#[derive(Default)]
struct Listening(Vec<(Vec<i64>, f64)>);

impl Noise for Listening {
    fn dropout(&mut self, x: &Tensor, p: f64) -> Result<Tensor, TchError> {
        self.0.push((x.size(), p));
        Ok(x.shallow_clone())
    }
}

/// Largest difference of two tensors' elements.
fn apart(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max().double_value(&[])
}

/// ‖a − b‖/‖b‖.
fn apart_relative(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    let norm = b.norm().double_value(&[]);
    (a - b).norm().double_value(&[]) / norm.max(1e-12)
}

#[test]
fn hidden_states_pooled_vectors_and_word_scores_are_those_of_transformers() {
    for family in FAMILIES {
        let golden = Golden::read(family);
        let (p, batch, model) = (golden.parameters(), golden.batch(), &golden.model);
        for training in [false, true] {
            let quiet: &mut dyn Noise = &mut Quiet;
            let listening: &mut dyn Noise = &mut Listening::default();
            let noise = if training { listening } else { quiet };
            let mut hidden = model.embed(&p, &batch, noise).unwrap();
            for i in 0..=golden.config().layers {
                let off = apart(&batch.padded(&hidden).unwrap(), golden.get(&format!("hidden.{i}")));
                assert!(off < 1e-5, "{family}: hidden state {i} is off by {off}");
                if i < golden.config().layers {
                    hidden = model.layer(&p, i, &hidden, &batch, noise).unwrap();
                }
            }
            let mean = model.pool(&p, &hidden, &batch, Pooling::Mean).unwrap();
            assert!(apart(&mean, golden.get("mean")) < 1e-5, "{family}");
            if golden.with_pooler() {
                let pooled = model.pool(&p, &hidden, &batch, Pooling::Pooler).unwrap();
                assert!(apart(&pooled, golden.get("pooled")) < 1e-5, "{family}");
            }
            let scored = hidden.index_select(0, golden.get("scored"));
            let logits = model.mlm_logits(&p, &golden.mlm_head(), &scored).unwrap();
            let off = apart(&logits, golden.get("logits"));
            assert!(off < 1e-5, "{family}: word scores are off by {off}");
        }
    }
}

#[test]
fn the_gradient_of_every_parameter_is_that_of_transformers() {
    for family in FAMILIES {
        let golden = Golden::read(family);
        let (batch, model) = (golden.batch(), &golden.model);
        let with_pooler = golden.with_pooler();
        for training in [false, true] {
            let quiet: &mut dyn Noise = &mut Quiet;
            let listening: &mut dyn Noise = &mut Listening::default();
            let noise = if training { listening } else { quiet };
            let leaf = |tensor: Tensor| tensor.set_requires_grad(true);
            let p: Vec<Tensor> = golden.parameters().into_iter().map(leaf).collect();
            let head = golden.mlm_head();
            let head = MlmHead {
                dense_weight: leaf(head.dense_weight),
                dense_bias: leaf(head.dense_bias),
                norm_weight: leaf(head.norm_weight),
                norm_bias: leaf(head.norm_bias),
                bias: leaf(head.bias),
            };
            let hidden = model.encode(&p, &batch, noise).unwrap();
            let logits = model.mlm_logits(&p, &head, &hidden.index_select(0, golden.get("scored"))).unwrap();
            let mean = model.pool(&p, &hidden, &batch, Pooling::Mean).unwrap();
            let sum = |of: &Tensor, name: &str| (of * golden.get(&format!("factor.{name}"))).sum(Kind::Float);
            let mut loss = sum(&hidden, "last") + sum(&mean, "mean") + sum(&logits, "logits");
            if with_pooler {
                let pooled = model.pool(&p, &hidden, &batch, Pooling::Pooler).unwrap();
                loss += sum(&pooled, "pooled");
            }
            assert!(
                (loss.double_value(&[]) - golden.get("loss").double_value(&[0])).abs() < 1e-4,
                "{family}"
            );
            loss.backward();

            let parameters = golden.config().parameters(with_pooler);
            let mut compared: Vec<(String, &Tensor)> = parameters
                .iter()
                .zip(&p)
                .map(|(parameter, tensor)| (parameter.name.clone(), tensor))
                .collect();
            if family == "bert" {
                let head = [
                    ("transform.dense.weight", &head.dense_weight),
                    ("transform.dense.bias", &head.dense_bias),
                    ("transform.LayerNorm.weight", &head.norm_weight),
                    ("transform.LayerNorm.bias", &head.norm_bias),
                    ("bias", &head.bias),
                ];
                compared.extend(head.map(|(name, tensor)| (format!("cls.predictions.{name}"), tensor)));
            }
            for (name, tensor) in compared {
                let (found, expected) = (tensor.grad(), golden.get(&format!("gradient.{name}")));
                // A constant added to all keys changes no attention: this gradient is 0, and rounding all there is.
                if name.ends_with("key.bias") {
                    assert!(apart(&found, expected) < 1e-5, "{family}: {name}");
                    continue;
                }
                let off = apart_relative(&found, expected);
                assert!(off < 1e-4, "{family}: the gradient of {name} is off by {off}");
            }
        }
    }
}

#[test]
fn minilm_reads_real_sentences_as_transformers_does() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.deps/data/minilm");
    if !directory.join("model.safetensors").exists() {
        println!("skipped: {} has no model.safetensors", directory.display());
        return;
    }
    let config =
        EncoderConfig::parse("config.json", &std::fs::read(directory.join("config.json")).unwrap()).unwrap();
    let bytes = std::fs::read(directory.join("model.safetensors")).unwrap();
    assert!(has_pooler(&config, "model.safetensors", &bytes).unwrap());
    let p = load(&config, "model.safetensors", &bytes, true).unwrap();
    assert!(load_mlm_head(&config, "model.safetensors", &bytes).unwrap().is_none());
    let golden: BTreeMap<String, Tensor> =
        Tensor::read_safetensors(place("minilm.safetensors")).unwrap().into_iter().collect();
    let batch = Batch::new(&golden["ids"], &golden["ids"].zeros_like(), &golden["mask"]).unwrap();
    let model = Transformer::new(config);
    for (pooling, name) in [(Pooling::Mean, "mean"), (Pooling::Cls, "first"), (Pooling::Pooler, "pooled")] {
        let off = apart(&model.features(&p, &batch, pooling, &mut Quiet).unwrap(), &golden[name]);
        assert!(off < 1e-5, "{name} is off by {off}");
    }
}

#[test]
fn a_last_layer_of_first_tokens_alone_has_the_values_and_gradients_of_a_whole_one() {
    for family in FAMILIES {
        let golden = Golden::read(family);
        let (batch, model) = (golden.batch(), &golden.model);
        let gradients = |pooling: Pooling, short: bool, noise: &mut dyn Noise| {
            let p: Vec<Tensor> =
                golden.parameters().into_iter().map(|tensor| tensor.set_requires_grad(true)).collect();
            let pooled = if short {
                model.features(&p, &batch, pooling, noise).unwrap()
            } else {
                let hidden = model.encode(&p, &batch, noise).unwrap();
                model.pool(&p, &hidden, &batch, pooling).unwrap()
            };
            let factor = Tensor::arange(pooled.numel() as i64, (Kind::Float, pooled.device())).sin();
            (&pooled * factor.view_as(&pooled)).sum(Kind::Float).backward();
            let last = p.iter().map(Tensor::grad).collect::<Vec<_>>();
            (pooled.detach(), last)
        };
        for pooling in golden.poolings() {
            for training in [false, true] {
                let run = |short: bool| {
                    if training {
                        gradients(pooling, short, &mut Listening::default())
                    } else {
                        gradients(pooling, short, &mut Quiet)
                    }
                };
                let ((pooled, short), (expected, whole)) = (run(true), run(false));
                assert!(apart(&pooled, &expected) < 1e-5, "{family} {pooling:?}");
                for (short, whole) in short.iter().zip(&whole).filter(|(_, whole)| whole.defined()) {
                    assert!(apart(short, whole) < 1e-4, "{family} {pooling:?}");
                }
            }
        }
    }
}

#[test]
fn padding_changes_no_vector() {
    for family in FAMILIES {
        let golden = Golden::read(family);
        let (p, model) = (golden.parameters(), &golden.model);
        let wider = |of: &Tensor, fill: f64| {
            of.constant_pad_nd([0, 3])
                .masked_fill(&golden.get("mask").constant_pad_nd([0, 3]).logical_not(), fill)
        };
        let mask = golden.get("mask").constant_pad_nd([0, 3]);
        // Ids of padding that are in no table: they must not even be looked up.
        let padded =
            Batch::new(&wider(golden.get("ids"), 1e9), &wider(golden.get("types"), 1e9), &mask).unwrap();
        let all = model.encode(&p, &golden.batch(), &mut Quiet).unwrap();
        let found = model.encode(&p, &padded, &mut Quiet).unwrap();
        assert!(apart(&found, &all) < 1e-5, "{family}");
        // A sentence by itself, which is a batch without padding.
        let alone = |name: &str| golden.get(name).narrow(0, 1, 1).narrow(1, 0, 4);
        let single = Batch::new(&alone("ids"), &alone("types"), &alone("mask")).unwrap();
        let found = model.features(&p, &single, Pooling::Mean, &mut Listening::default()).unwrap();
        assert!(apart(&found, &golden.get("mean").narrow(0, 1, 1)) < 1e-5, "{family}");
        let rows = padded.padded(&all).unwrap();
        assert_eq!(rows.size(), [3, 12, golden.config().hidden]);
        assert_eq!(apart(&padded.rows(&rows).unwrap(), &all), 0.0);
    }
}

#[test]
fn a_word_table_with_only_the_words_in_use_serves_as_well() {
    let golden = Golden::read("roberta");
    let (mut p, model) = (golden.parameters(), &golden.model);
    let expected = model.features(&p, &golden.batch(), Pooling::Pooler, &mut Quiet).unwrap();
    let (used, renamed, _) = golden.get("ids").internal_unique2(true, true, false);
    p[0] = p[0].index_select(0, &used);
    let batch = Batch::new(&renamed, golden.get("types"), golden.get("mask")).unwrap();
    let found = model.features(&p, &batch, Pooling::Pooler, &mut Quiet).unwrap();
    assert_eq!(apart(&found, &expected), 0.0);
}

#[test]
fn an_encoder_of_bfloat16_parameters_stays_bfloat16() {
    for family in FAMILIES {
        let golden = Golden::read(family);
        let model = &golden.model;
        for pooling in golden.poolings() {
            let half: Vec<Tensor> = golden
                .parameters()
                .into_iter()
                .map(|tensor| tensor.to_kind(Kind::BFloat16).set_requires_grad(true))
                .collect();
            let rounded: Vec<Tensor> =
                half.iter().map(|tensor| tensor.detach().to_kind(Kind::Float)).collect();
            let expected = model.features(&rounded, &golden.batch(), pooling, &mut Quiet).unwrap();
            for training in [false, true] {
                let quiet: &mut dyn Noise = &mut Quiet;
                let listening: &mut dyn Noise = &mut Listening::default();
                let noise = if training { listening } else { quiet };
                let found = model.features(&half, &golden.batch(), pooling, noise).unwrap();
                assert_eq!(found.kind(), Kind::BFloat16);
                let off = apart_relative(&found.detach(), &expected);
                assert!(off < 0.05, "{family} {pooling:?} is off by {off}");
                found.to_kind(Kind::Float).square().mean(Kind::Float).backward();
                assert!(half[0].grad().defined());
            }
        }
    }
}

#[test]
fn noise_is_asked_for_at_fixed_sites_and_not_where_its_probability_is_zero() {
    let golden = Golden::read("bert");
    let (p, batch) = (golden.parameters(), golden.batch());
    let (tokens, hidden, heads) = (batch.tokens(), golden.config().hidden, golden.config().heads);
    let all = vec![tokens, hidden];
    let weights = vec![3, heads, 9, 9];
    let mut config = golden.config().clone();
    (config.hidden_dropout, config.attention_dropout) = (0.1, 0.2);
    let asked = |config: &EncoderConfig, pooling: Pooling| {
        let mut noise = Listening::default();
        let _ = Transformer::new(config.clone()).features(&p, &batch, pooling, &mut noise).unwrap();
        noise.0
    };
    let layer = [(weights.clone(), 0.2), (all.clone(), 0.1), (all.clone(), 0.1)];
    let expected = [&[(all.clone(), 0.1)][..], &layer, &layer].concat();
    assert_eq!(asked(&config, Pooling::Mean), expected);

    let short = [(vec![3, heads, 1, 9], 0.2), (vec![3, hidden], 0.1), (vec![3, hidden], 0.1)];
    assert_eq!(asked(&config, Pooling::Cls), [&[(all.clone(), 0.1)][..], &layer, &short].concat());

    config.hidden_dropout = 0.0;
    assert_eq!(asked(&config, Pooling::Mean), [(weights.clone(), 0.2), (weights, 0.2)]);
    (config.hidden_dropout, config.attention_dropout) = (0.1, 0.0);
    assert_eq!(asked(&config, Pooling::Mean), vec![(all, 0.1); 5]);
}

#[test]
fn parameters_come_in_a_fixed_order_with_the_group_they_belong_to() {
    let golden = Golden::read("electra");
    let config = golden.config();
    let parameters = config.parameters(true);
    let names: Vec<&str> = parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    assert_eq!(names[0], "embeddings.word_embeddings.weight");
    assert_eq!(names[5], "embeddings_project.weight");
    assert_eq!(names[config.parameters_before(0)], "encoder.layer.0.attention.self.query.weight");
    assert_eq!(names[config.parameters_before(1)], "encoder.layer.1.attention.self.query.weight");
    assert_eq!(names[config.parameters_before(config.layers)], "pooler.dense.weight");
    assert_eq!(parameters[7 + 16].group, Group::Layer(1));
    assert_eq!(parameters[7 + 16 + 10].shape, [48, 32]);
    assert_eq!(parameters.last().unwrap().group, Group::Pooler);

    let albert = Golden::read("albert");
    let groups: Vec<Group> = albert.config().parameters(true).into_iter().map(|p| p.group).collect();
    assert_eq!(groups.iter().filter(|group| **group == Group::Layer(0)).count(), 16);
    assert_eq!(groups.len(), 7 + 16 + 2);
    assert_eq!(albert.config().parameters_before(2), 7 + 16);
}

#[test]
fn half_precision_files_are_read_as_f32() {
    let golden = Golden::read("roberta");
    for kind in [Kind::Half, Kind::BFloat16, Kind::Double] {
        let bytes = golden.rewritten(|name, tensor| {
            Some(if name.starts_with("golden.") { tensor.shallow_clone() } else { tensor.to_kind(kind) })
        });
        let found = load(golden.config(), "model", &bytes, true).unwrap();
        for (found, stored) in found.iter().zip(golden.parameters()) {
            assert_eq!(found.kind(), Kind::Float);
            assert_eq!(apart(found, &stored.to_kind(kind)), 0.0);
        }
    }
    let whole = golden.rewritten(|_, tensor| Some(tensor.to_kind(Kind::Int64)));
    let error = load(golden.config(), "model", &whole, true).unwrap_err();
    assert!(matches!(&error, ModelError::Kind { found, .. } if found == "I64"), "{error}");
}

#[test]
fn a_missing_tensor_is_named_with_the_shape_it_should_have() {
    let golden = Golden::read("bert");
    let name = "encoder.layer.1.attention.output.LayerNorm.weight";
    let bytes = golden.rewritten(|stored, tensor| {
        (stored != "bert.encoder.layer.1.attention.output.LayerNorm.gamma").then(|| tensor.shallow_clone())
    });
    let error = load(golden.config(), "some/model.safetensors", &bytes, true).unwrap_err().to_string();
    for part in ["some/model.safetensors", name, "[32]"] {
        assert!(error.contains(part), "{error}");
    }

    let bytes = golden
        .rewritten(|stored, tensor| (stored != "bert.pooler.dense.bias").then(|| tensor.shallow_clone()));
    assert!(!has_pooler(golden.config(), "model", &bytes).unwrap());
    assert!(load(golden.config(), "model", &bytes, false).is_ok());
    assert!(matches!(load(golden.config(), "model", &bytes, true), Err(ModelError::Missing { .. })));

    let bytes =
        golden.rewritten(|stored, tensor| (stored != "cls.predictions.bias").then(|| tensor.shallow_clone()));
    let error = load_mlm_head(golden.config(), "model", &bytes).unwrap_err();
    assert!(matches!(&error, ModelError::Missing { tensor, .. } if tensor == "cls.predictions.bias"));
}

#[test]
fn a_tensor_of_another_shape_is_named_with_both_shapes() {
    let golden = Golden::read("bert");
    let mut config = golden.config().clone();
    config.intermediate = 64;
    let error = load(&config, "model.safetensors", &golden.bytes, true).unwrap_err().to_string();
    for part in ["model.safetensors", "encoder.layer.0.intermediate.dense.weight", "[48, 32]", "[64, 32]"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_file_that_is_cut_short_or_is_none_is_an_error() {
    let golden = Golden::read("bert");
    for length in [0, 7, 8, 100, golden.bytes.len() - 1] {
        let error = load(golden.config(), "model", &golden.bytes[..length], true).unwrap_err();
        assert!(matches!(error, ModelError::Weights { .. }), "{length}: {error}");
    }
    assert!(matches!(load(golden.config(), "model", &[0xff; 64], true), Err(ModelError::Weights { .. })));
}

#[test]
fn configurations_that_are_not_implemented_say_what_is() {
    let golden = std::fs::read_to_string(place("bert.json")).unwrap();
    let parse = |from: &str, to: &str| {
        let changed = golden.replace(from, to);
        assert_ne!(changed, golden, "{from}");
        EncoderConfig::parse("c.json", changed.as_bytes()).unwrap_err().to_string()
    };
    assert_eq!(
        parse("\"model_type\": \"bert\"", "\"model_type\": \"t5\""),
        "c.json: found model_type `t5`; allowed: bert, roberta, xlm-roberta, electra, albert"
    );
    assert_eq!(
        parse("\"hidden_act\": \"gelu\"", "\"hidden_act\": \"swish\""),
        "c.json: found hidden_act swish; allowed: gelu, gelu_new, relu"
    );
    assert_eq!(
        parse("\"num_attention_heads\": 4", "\"num_attention_heads\": 5"),
        "c.json: found num_attention_heads 5; allowed: divisors of 32"
    );
    assert_eq!(parse("\"hidden_size\": 32,", ""), "c.json: hidden_size is missing");
    assert_eq!(
        parse("\"is_decoder\": false", "\"is_decoder\": true"),
        "c.json: found is_decoder true; allowed: false"
    );
    assert_eq!(
        parse("\"hidden_act\"", "\"position_embedding_type\": \"relative_key\", \"hidden_act\""),
        "c.json: found position_embedding_type relative_key; allowed: absolute"
    );
    let probability = parse("\"hidden_dropout_prob\": 0.1", "\"hidden_dropout_prob\": 1.0");
    assert_eq!(probability, "c.json: found hidden_dropout_prob 1; allowed: [0, 1)");
    assert!(parse("\"vocab_size\": 60", "\"vocab_size\": -1").contains("vocab_size -1; allowed: 1 to"));
    assert!(matches!(EncoderConfig::parse("c.json", b"{"), Err(ModelError::Config { .. })));
}

#[test]
fn positions_of_roberta_count_after_padding_and_a_longer_sequence_is_refused() {
    for (family, most) in [("bert", 16), ("roberta", 14)] {
        let golden = Golden::read(family);
        assert_eq!(golden.config().max_positions, most);
        let encode = |length: i64| {
            let ids = Tensor::full([1, length], 3, (Kind::Int64, tch::Device::Cpu));
            let batch = Batch::new(&ids, &ids.zeros_like(), &ids.ones_like().to_kind(Kind::Bool)).unwrap();
            golden.model.encode(&golden.parameters(), &batch, &mut Quiet)
        };
        assert!(encode(most).is_ok());
        let error = encode(most + 1).unwrap_err().to_string();
        assert!(error.contains(&format!("{} tokens", most + 1)), "{error}");
    }
}

#[test]
fn a_batch_with_an_empty_sequence_or_a_hole_is_refused() {
    let ids = Tensor::zeros([2, 3], (Kind::Int64, tch::Device::Cpu));
    for mask in [[true, true, true, false, false, false], [true, true, true, true, false, true]] {
        let mask = Tensor::from_slice(&mask).view([2, 3]);
        assert!(Batch::new(&ids, &ids, &mask).is_err());
    }
    assert!(Batch::new(&ids, &ids, &Tensor::ones([2, 4], (Kind::Bool, tch::Device::Cpu))).is_err());
}
