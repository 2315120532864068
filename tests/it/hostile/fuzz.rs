//! A short run of the fuzz targets: seeds that mean something, changed at random. The seed of the run is told; another
//! one is taken with `LAKEGATE_FUZZ_SEED`, more cases with `LAKEGATE_FUZZ_CASES`.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};

use super::harness::{Call, Server};

/// Cases of each call unless told otherwise.
const CASES: u64 = 150;
/// Numbers at which lengths and counts go wrong.
const NUMBERS: &[i64] =
    &[0, -1, 1, 127, 128, 255, 65535, i32::MAX as i64, i32::MIN as i64, 1 << 40, i64::MAX, i64::MIN];
/// Words that change what a statement means.
const WORDS: &[&str] = &[
    " select ",
    " from ",
    " (",
    ") ",
    " union all ",
    ", ",
    " ? ",
    " $1 ",
    "'",
    "\"",
    "--",
    "/*",
    ";",
    " not ",
    " null ",
    " in ",
    " join ",
    " as ",
    " over ",
    "::int",
    " * ",
    " version as of ",
    " 99999999999999999999 ",
    "é",
    "\u{0}",
];

#[test]
fn no_bytes_of_nobodys_making_disturb_the_server() {
    let number =
        |name: &str, otherwise: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let seed = number("LAKEGATE_FUZZ_SEED", rand::random());
    let cases = number("LAKEGATE_FUZZ_CASES", CASES);
    println!("LAKEGATE_FUZZ_SEED={seed}");
    let server = Server::start();
    for call in Call::ALL {
        let seeds = server.seeds(call);
        for bytes in &seeds {
            server.serves(call, bytes);
        }
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..cases {
            let bytes = altered(&seeds, call == Call::Sql, &mut random);
            server.serves(call, &bytes);
        }
    }
}

fn altered(seeds: &[Vec<u8>], is_text: bool, random: &mut StdRng) -> Vec<u8> {
    let mut bytes = seeds.choose(random).unwrap().clone();
    for _ in 0..random.random_range(1..=6) {
        let at = random.random_range(0..=bytes.len());
        let end = (at + random.random_range(0..=16)).min(bytes.len());
        match random.random_range(0..8) {
            _ if is_text && random.random_bool(0.6) => {
                let word = WORDS.choose(random).unwrap().bytes();
                bytes.splice(at..at, word);
            }
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = random.random(),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            5 => {
                let mut noise = vec![0; random.random_range(1..=32)];
                random.fill_bytes(&mut noise);
                bytes.splice(at..at, noise);
            }
            6 => {
                let number = NUMBERS.choose(random).unwrap().to_le_bytes();
                let end = (at + number.len()).min(bytes.len());
                bytes.splice(at..end, number);
            }
            _ => {
                let other = seeds.choose(random).unwrap();
                let from = random.random_range(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}
