//! Random statements against a model in memory: with and without a key, in small files, and after each of them the same
//! rows.

use std::collections::BTreeMap;

use lakegate::error::ErrorKind;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::place::{Place, refusal};
use crate::support::ground::Ground;

/// Ids are below this, so that statements meet each other's rows.
const IDS: i64 = 400;

/// Statements of one run.
const STEPS: usize = 40;

/// The rows by id: how many there are of each, with their value. Without a key an id may be there several times.
#[derive(Default)]
struct Model {
    rows: Vec<(i64, Option<i64>)>,
    keyed: bool,
}

impl Model {
    fn lines(&self) -> Vec<String> {
        let mut rows = self.rows.clone();
        rows.sort_unstable_by_key(|(id, n)| (*id, n.unwrap_or(i64::MAX)));
        rows.iter().map(|(id, n)| format!("{id} {}", n.map_or("NULL".to_owned(), |n| n.to_string()))).collect()
    }

    fn has_duplicates(rows: &[(i64, Option<i64>)]) -> bool {
        let mut ids = BTreeMap::new();
        rows.iter().any(|(id, _)| ids.insert(*id, ()).is_some())
    }

    /// Does it, unless a key would be there twice.
    fn put(&mut self, rows: Vec<(i64, Option<i64>)>) -> bool {
        if self.keyed && Self::has_duplicates(&rows) {
            return false;
        }
        self.rows = rows;
        true
    }
}

/// What a condition says of a row.
type Meaning = Box<dyn Fn(&(i64, Option<i64>)) -> bool>;

/// A condition as SQL and as what it means; NULL is no truth.
fn condition(random: &mut StdRng) -> (String, Meaning) {
    let (a, b) = (random.random_range(0..IDS), random.random_range(1..7_i64));
    let (low, high) = (a, a + random.random_range(0..80_i64));
    match random.random_range(0..7) {
        0 => (format!("id between {low} and {high}"), Box::new(move |(id, _)| (low..=high).contains(id))),
        1 => (format!("id % {b} = 0"), Box::new(move |(id, _)| id % b == 0)),
        2 => (format!("n > {a}"), Box::new(move |(_, n)| n.is_some_and(|n| n > a))),
        3 => ("n is null".to_owned(), Box::new(|(_, n)| n.is_none())),
        4 => (format!("not (n > {a})"), Box::new(move |(_, n)| n.is_some_and(|n| n <= a))),
        5 => (
            format!("id in (select id + {b} from m where id < {a})"),
            Box::new(move |_| unreachable!("looked up in the model")),
        ),
        _ => (
            format!("n not in (1, {a}) or id = {a}"),
            Box::new(move |(id, n)| n.is_some_and(|n| n != 1 && n != a) || *id == a),
        ),
    }
}

async fn run(seed: u64, keyed: bool) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut ground = Ground::local();
    // Files of a few rows each.
    ground.settings.target_file_size = 4 << 10;
    let place = Place::on(ground, &[]).await;
    let key = if keyed { ", primary key (id)" } else { "" };
    place.run(&format!("create table m (id bigint, n bigint{key})")).await;
    let mut model = Model { rows: Vec::new(), keyed };
    for step in 0..STEPS {
        let told = format!("seed {seed}, keyed {keyed}, step {step}");
        let (where_sql, meant) = condition(&mut random);
        let subquery = where_sql.contains("select");
        let picks: Vec<bool> = if subquery {
            let numbers: Vec<i64> =
                where_sql.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect();
            let (plus, below) = (numbers[0], numbers[1]);
            let ids: Vec<i64> = model.rows.iter().filter(|(id, _)| *id < below).map(|(id, _)| id + plus).collect();
            model.rows.iter().map(|(id, _)| ids.contains(id)).collect()
        } else {
            model.rows.iter().map(&meant).collect()
        };
        let picked = picks.iter().filter(|picked| **picked).count() as u64;
        let (sql, rows, count) = match random.random_range(0..10) {
            0..=3 => {
                let new: Vec<(i64, Option<i64>)> = (0..random.random_range(1..60))
                    .map(|_| {
                        (random.random_range(0..IDS), random.random_bool(0.8).then(|| random.random_range(0..IDS)))
                    })
                    .collect();
                let values: Vec<String> = new
                    .iter()
                    .map(|(id, n)| format!("({id}, {})", n.map_or("null".to_owned(), |n| n.to_string())))
                    .collect();
                let count = new.len() as u64;
                let rows = [model.rows.clone(), new].concat();
                (format!("insert into m values {}", values.join(", ")), rows, count)
            }
            4 => {
                let shift = random.random_range(1..300_i64);
                let new =
                    model.rows.iter().zip(&picks).filter(|(_, picked)| **picked).map(|((id, n), _)| (id + shift, *n));
                let rows: Vec<_> = model.rows.iter().copied().chain(new).collect();
                (format!("insert into m select id + {shift}, n from m where {where_sql}"), rows, picked)
            }
            5 | 6 => {
                let rows = model
                    .rows
                    .iter()
                    .zip(&picks)
                    .map(|((id, n), picked)| (*id, if *picked { n.map(|n| n + 1) } else { *n }));
                (format!("update m set n = n + 1 where {where_sql}"), rows.collect(), picked)
            }
            7 => {
                let shift = random.random_range(1..50_i64);
                let rows = model
                    .rows
                    .iter()
                    .zip(&picks)
                    .map(|((id, n), picked)| if *picked { (*id + shift, Some(*id)) } else { (*id, *n) });
                (format!("update m set id = id + {shift}, n = id where {where_sql}"), rows.collect(), picked)
            }
            _ => {
                let rows = model.rows.iter().zip(&picks).filter(|(_, picked)| !**picked).map(|(row, _)| *row);
                (format!("delete from m where {where_sql}"), rows.collect(), picked)
            }
        };
        let result = place.change(&sql).await;
        if model.put(rows) {
            let changed = result.unwrap_or_else(|error| panic!("{told}: {sql}: {error}"));
            assert_eq!(changed, count, "{told}: {sql}");
        } else {
            let (kind, message) = refusal(result, &sql);
            assert_eq!(kind, ErrorKind::AlreadyExists, "{told}: {message}");
        }
        let found = place.rows("select id, n from m order by id, n nulls last").await;
        assert_eq!(found, model.lines(), "{told}: {sql}");
        let bounds = place.rows("select min(id), max(id), count(*) from m where id >= 0").await;
        let ids = model.rows.iter().map(|(id, _)| *id);
        let text = |value: Option<i64>| value.map_or("NULL".to_owned(), |value| value.to_string());
        let expected = format!("{} {} {}", text(ids.clone().min()), text(ids.clone().max()), model.rows.len());
        assert_eq!(bounds, [expected], "{told}: {sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_statements_do_to_a_keyed_table_what_they_do_to_a_list() {
    for seed in [1, 2, rand::random()] {
        run(seed, true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_statements_do_to_a_table_without_a_key_what_they_do_to_a_list() {
    for seed in [3, 4, rand::random()] {
        run(seed, false).await;
    }
}
