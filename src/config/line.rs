//! `[[line]]`: the shared lines between the server and people, what they carry, and how it is shared; `[results]`: how results are
//! sent over any line.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::DeValue;

use crate::config::access::known_roles;
use crate::config::lakegate_file::{Surroundings, optional};
use crate::config::problem::Problem;
use crate::config::reader::{At, Context, Field, Low, Named, low_table};
use crate::config::settings::{CodecDefault, LineSettings, ResultSettings, Settings};
use crate::config::sqlserver::values::Rate;
use crate::config::values::{Choice, Chosen, number, parsed};
use crate::model::Codec;

/// Least rate of a line in bits per second: below it one message of rows takes longer than people wait.
const LEAST_RATE: u64 = 64_000;
/// Weights there are: what is beyond would leave others nothing.
const WEIGHTS: [f64; 2] = [0.01, 100.0];

low_table! {
    /// `[[line]]`
    LowLine {
        /// The networks behind the line, as 10.0.0.0/8; of networks within each other the smallest that holds an address counts.
        networks: Vec<At<Network>> = [];
        /// What the line carries; the server sends no more than 97 % of it to these networks, headers counted.
        rate: Rate;
        /// Whether these networks are so fast that no compression pays: clients that name no codec are sent rows as they are.
        fast: bool = false;
        /// By role, how many times the share of others its members have; of several roles the greatest counts.
        weights: Named<Weight> = {};
        /// How results are compressed for programs of these networks that name no codec, if they are known to unpack it; as [results] says where nothing is given.
        codec: Chosen<CodecDefault>;
        /// Whether programs of these networks that say nothing of it, and are known to read dictionaries, may be sent them; as [results] says where nothing is given.
        dictionaries: bool;
    }
}

low_table! {
    /// `[results]`
    LowResults {
        /// How results are compressed for programs that name no codec, if they are known to unpack it.
        codec: Chosen<CodecDefault> = "auto";
        /// Whether programs that say nothing of it, and are known to read dictionaries, may be sent them.
        dictionaries: bool = false;
    }
}

impl Choice for CodecDefault {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("zstd", Self::Only(Codec::Zstd)),
        ("lz4", Self::Only(Codec::Lz4)),
        ("none", Self::Only(Codec::None)),
    ];
}

/// How results are sent where nobody says otherwise.
pub(super) fn result_settings(low: &LowResults) -> Option<ResultSettings> {
    Some(ResultSettings { codec: low.codec.copied()?.0, dictionaries: low.dictionaries.copied()? })
}

/// A network, as its first address and the length of its prefix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network(pub(crate) IpNet);

impl Low for Network {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        const EXPECTED: &str = "a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"";
        parsed(value, key, context, EXPECTED, |text, place| {
            let wrong = |nearest: Option<String>| {
                let problem = place.problem(format!("{text:?} is no network")).expected(EXPECTED);
                Box::new(Problem { nearest, ..problem })
            };
            let alone = || text.parse::<IpAddr>().ok().map(|address| IpNet::from(address).to_string());
            let network: IpNet = text.parse().map_err(|_| wrong(alone()))?;
            match network.trunc() {
                first if first == network => Ok(Self(network)),
                first => Err(wrong(Some(first.to_string()))),
            }
        })
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]+$" })
    }
}

/// How many times the share of others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weight(pub(crate) f64);

impl Low for Weight {
    fn read(value: &Spanned<DeValue<'_>>, key: &str, context: &mut Context<'_>) -> Option<Self> {
        let [least, most] = WEIGHTS;
        match number(value.get_ref()).filter(|number| (least..=most).contains(number)) {
            Some(number) => Some(Self(number)),
            None => context.mismatch(value, key, "a number from 0.01 to 100"),
        }
    }

    fn schema() -> Value {
        json!({ "type": "number", "minimum": WEIGHTS[0], "maximum": WEIGHTS[1] })
    }
}

/// The lines there are; nothing where something of one could not be read.
pub(super) fn line_settings(low: &[At<LowLine>], around: &mut Surroundings<'_>) -> Option<Vec<LineSettings>> {
    let mut taken = BTreeSet::new();
    let lines: Vec<_> = low.iter().map(|at| line(at, &mut taken, around)).collect();
    lines.into_iter().collect()
}

fn line(at: &At<LowLine>, taken: &mut BTreeSet<IpNet>, around: &mut Surroundings<'_>) -> Option<LineSettings> {
    let low = &at.value;
    let networks = low.networks.value();
    if networks.is_some_and(Vec::is_empty) {
        around.problems.push(at.place.problem("the line has no networks").expected("networks = [\"10.0.0.0/8\"]"));
    }
    for network in networks.into_iter().flatten() {
        if !taken.insert(network.value.0) {
            let message = format!("{} is behind a line already; which one is meant?", network.value.0);
            around.problems.push(network.place.problem(message).expected("each network once"));
        }
    }
    let (rate, fast) = (optional(&low.rate), low.fast.copied());
    match &low.rate {
        Field::Given(rate) if rate.value.0 < LEAST_RATE => {
            around.problems.push(rate.place.problem("the rate is too low").expected("at least \"64kbit/s\""));
        }
        Field::Missing
            if fast == Some(false) && matches!((&low.codec, &low.dictionaries), (Field::Missing, Field::Missing)) =>
        {
            let problem = at.place.problem("the line says neither what it carries nor that it is fast");
            around.problems.push(problem.expected("rate = \"100Mbit/s\", or fast = true"));
        }
        _ => {}
    }
    if let (Field::Given(codec), Some(true)) = (&low.codec, fast) {
        let problem = codec.place.problem("the line is fast, so nothing is compressed there");
        around.problems.push(problem.expected("fast = true, or a codec"));
    }
    let (codec, dictionaries) = (optional(&low.codec), optional(&low.dictionaries));
    let Named(weights) = low.weights.value()?;
    let weights = weights.iter().map(|(role, at)| Some((role.clone(), at.as_ref()?.value.0)));
    let weights: Option<BTreeMap<_, _>> = weights.collect();
    Some(LineSettings {
        networks: networks?.iter().map(|network| network.value.0).collect(),
        rate: rate?.map(|rate| rate.0),
        fast: fast?,
        weights: weights?,
        codec: codec?.map(|codec| codec.0),
        dictionaries: dictionaries?,
    })
}

/// Notes weights that hold for nobody: of roles that no file knows.
pub(super) fn warn_of_unknown_roles(low: &[At<LowLine>], settings: &Settings, problems: &mut Vec<Problem>) {
    let roles = known_roles(&settings.access.files);
    for (role, at) in low.iter().filter_map(|line| line.value.weights.value()).flat_map(|weights| &weights.0) {
        let Some(at) = at.as_ref().filter(|_| !roles.contains(role.as_str())) else { continue };
        let problem = at.place.problem(format!("there is no role `{role}`: nobody has this weight"));
        problems.push(problem.near(role, roles.iter().copied()).warning());
    }
}
