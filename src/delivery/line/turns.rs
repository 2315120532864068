//! Whose message goes next over a line, piece by piece. Knows no clock: it is asked when there is room for one more.
//!
//! A person's account is what was sent to them, divided by their weight; whoever has had least goes next. That is deficit
//! round robin with turns of a single piece: a stream asks for its next piece only once the last has gone, so that what a longer
//! turn left over would be lost by those with few streams and not by those with many (start-time fair queueing: Goyal, Vin and
//! Cheng, SIGCOMM 1996). Of a person's streams, the one in the middle of a message goes on: whoever gets eight messages at once has
//! nothing of any of them until all are there. Between messages the one that has had least is the next.
//!
//! The first [`YOUNG`] bytes of a stream go before what others pull, as long as its person is no further ahead of the others
//! than they may be. So a small answer does not wait behind large ones, and nobody gets more by cutting a large one up. Of a
//! person's own streams, the first [`OPENING`] bytes of one go before the rest of a message of another, too.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::access::Principal;

/// Bytes of a stream that go ahead of what others pull, and most that a person may be ahead of others by that.
const YOUNG: f64 = (1 << 20) as f64;
/// Bytes of a stream that go ahead of the messages of its person's other streams: all of a small answer.
const OPENING: f64 = (64 << 10) as f64;
/// Bytes that somebody's older streams let by for each that goes of them, where younger ones always want more.
const LET_BY: f64 = 4.0;

/// Whose the bytes are: a person, however many connections they have; where everybody is anonymous, an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Account {
    name: String,
    address: Option<IpAddr>,
}

impl Account {
    /// The account of a principal who asks from an address.
    pub(super) fn of(principal: &Principal, address: Option<IpAddr>) -> Self {
        let is_anonymous = principal.name == Principal::anonymous().name;
        Self { name: principal.name.clone(), address: address.filter(|_| is_anonymous) }
    }
}

/// Who waits for the line, and what they have had of it.
#[derive(Debug)]
pub(super) struct Turns {
    people: BTreeMap<Account, Person>,
    /// Who has had least of those who waited had so much: where the account of whoever comes begins.
    level: f64,
    /// Bytes a person may be ahead of others. It is also how far back a person and a stream that asked for nothing may be
    /// behind: what they did not ask for for longer is not made up for.
    lead: f64,
}

/// A message, or a part of one, that waits for its turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// Its bytes.
    pub(super) bytes: u64,
    /// Whether it goes on with a message that has begun.
    pub(super) goes_on: bool,
}

#[derive(Debug)]
struct Person {
    weight: f64,
    /// What they have had, divided by their weight.
    had: f64,
    streams: BTreeMap<u64, Stream>,
    /// As [`Turns::level`], of the streams.
    level: f64,
    /// Bytes that went ahead of older streams which waited, less what those were given for it.
    ahead: f64,
}

#[derive(Debug)]
struct Stream {
    had: f64,
    /// Bytes since it began.
    sent: f64,
    /// What waits; none where nothing does.
    waits: Option<Piece>,
}

/// How far a stream has come; the younger go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    Opening,
    Young,
    Old,
}

impl Turns {
    /// Nobody there yet, on a line where somebody may be so many bytes ahead of others, if that is not too many.
    pub(super) fn new(lead: u64) -> Self {
        Self { people: BTreeMap::new(), level: 0.0, lead: (lead as f64).min(YOUNG) }
    }

    /// A stream of an account comes; its id is nobody else's.
    pub(super) fn enter(&mut self, account: &Account, weight: f64, id: u64) {
        if self.people.values().all(|person| person.streams.is_empty()) {
            // Nobody is left to whom anything would be owed.
            self.people.clear();
        }
        let level = self.level;
        self.people.retain(|_, person| !person.streams.is_empty() || person.had > level);
        let new = || Person { weight, had: level, streams: BTreeMap::new(), level: 0.0, ahead: 0.0 };
        let person = self.people.entry(account.clone()).or_insert_with(new);
        person.weight = weight;
        let had = person.level;
        person.streams.insert(id, Stream { had, sent: 0.0, waits: None });
    }

    /// A stream is over, whatever it waited for.
    pub(super) fn leave(&mut self, account: &Account, id: u64) {
        if let Some(person) = self.people.get_mut(account) {
            person.streams.remove(&id);
        }
    }

    /// A stream waits for its turn to send a piece.
    pub(super) fn ask(&mut self, account: &Account, id: u64, piece: Piece) {
        let Some(person) = self.people.get_mut(account) else { return };
        if !person.waits() {
            person.had = person.had.max(self.level - self.lead);
        }
        let level = person.level;
        let Some(stream) = person.streams.get_mut(&id) else { return };
        stream.had = stream.had.max(level - self.lead);
        stream.waits = Some(piece);
    }

    /// Whose turn it is: the stream, and the bytes of its piece. None where nobody waits.
    pub(super) fn next(&mut self) -> Option<(u64, u64)> {
        let lead = self.lead;
        let waiting = self.people.values_mut();
        let waiting = waiting.filter_map(|person| Some((person.candidate(lead)?, person)));
        let waiting: Vec<((u64, Age), &mut Person)> = waiting.collect();
        let least = waiting.iter().map(|(_, person)| person.had).min_by(f64::total_cmp)?;
        self.level = self.level.max(least);
        let order = |((_, age), person): &((u64, Age), &mut Person)| {
            let goes_ahead = *age < Age::Old && person.had < least + lead;
            (!goes_ahead, person.had)
        };
        let ((id, _), person) = waiting.into_iter().min_by(|one, other| {
            let (one, other) = (order(one), order(other));
            one.0.cmp(&other.0).then(one.1.total_cmp(&other.1))
        })?;
        Some((id, person.give_turn(id)?))
    }

    /// Whether anybody waits.
    pub(super) fn is_wanted(&self) -> bool {
        self.people.values().any(Person::waits)
    }

    /// What part of the line one more stream of an account would have now.
    pub(super) fn share(&self, account: &Account, weight: f64) -> f64 {
        let others = self.people.iter().filter(|(other, person)| *other != account && person.waits());
        let others: f64 = others.map(|(_, person)| person.weight).sum();
        let own = self.people.get(account).map_or(0, |person| person.waiting().count());
        weight / (weight + others) / (own + 1) as f64
    }
}

impl Person {
    fn waiting(&self) -> impl Iterator<Item = (&u64, &Stream)> {
        self.streams.iter().filter(|(_, stream)| stream.waits.is_some())
    }

    fn waits(&self) -> bool {
        self.waiting().next().is_some()
    }

    /// The stream that is next, and its age: one of the youngest, until the older ones have let enough go by.
    fn candidate(&self, lead: f64) -> Option<(u64, Age)> {
        let youngest = self.waiting().map(|(_, stream)| stream.age()).min()?;
        let older = self.ahead >= lead && self.waiting().any(|(_, stream)| stream.age() > youngest);
        let candidates = self.waiting().filter(|(_, stream)| (stream.age() > youngest) == older);
        let next = candidates
            .min_by(|(_, one), (_, other)| other.goes_on().cmp(&one.goes_on()).then(one.had.total_cmp(&other.had)));
        next.map(|(id, stream)| (*id, stream.age()))
    }

    /// A stream that waits has its turn; the bytes of its piece.
    fn give_turn(&mut self, id: u64) -> Option<u64> {
        let least = self.waiting().map(|(_, stream)| stream.had).min_by(f64::total_cmp)?;
        self.level = self.level.max(least);
        let age = self.streams.get(&id)?.age();
        let goes_before_older = self.waiting().any(|(_, stream)| stream.age() > age);
        let goes_before_younger = self.waiting().any(|(_, stream)| stream.age() < age);
        let stream = self.streams.get_mut(&id)?;
        let bytes = stream.waits.take()?.bytes;
        let size = bytes as f64;
        stream.had += size;
        stream.sent += size;
        self.had += size / self.weight;
        self.ahead = match (goes_before_younger, goes_before_older) {
            (true, _) => (self.ahead - LET_BY * size).max(0.0),
            (false, true) => self.ahead + size,
            (false, false) => 0.0,
        };
        Some(bytes)
    }
}

impl Stream {
    fn age(&self) -> Age {
        if self.sent < OPENING {
            Age::Opening
        } else if self.sent < YOUNG {
            Age::Young
        } else {
            Age::Old
        }
    }

    fn goes_on(&self) -> bool {
        self.waits.is_some_and(|piece| piece.goes_on)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    fn account(name: &str) -> Account {
        Account { name: name.to_owned(), address: None }
    }

    impl Default for Turns {
        fn default() -> Self {
            Self::new(MIB)
        }
    }

    fn whole(bytes: u64) -> Piece {
        Piece { bytes, goes_on: false }
    }

    /// A line without a clock, and those who want more of it than there is.
    #[derive(Default)]
    struct Line {
        turns: Turns,
        streams: HashMap<u64, (Account, u64)>,
        had: HashMap<u64, u64>,
        carried: u64,
        last: u64,
        /// Whether a stream asks for its next message only once that of another has gone.
        asks_late: bool,
        late: Option<u64>,
    }

    impl Line {
        /// A stream with messages of so many bytes, without end.
        fn opens(&mut self, name: &str, weight: f64, message: u64) -> u64 {
            self.last += 1;
            self.turns.enter(&account(name), weight, self.last);
            self.streams.insert(self.last, (account(name), message));
            self.asks(self.last);
            self.last
        }

        fn asks(&mut self, id: u64) {
            if let Some((account, message)) = self.streams.get(&id) {
                self.turns.ask(account, id, whole(*message));
            }
        }

        fn closes(&mut self, id: u64) {
            let (account, _) = self.streams.remove(&id).unwrap();
            self.turns.leave(&account, id);
        }

        /// One message goes.
        fn carries(&mut self) {
            let turn = self.turns.next().or_else(|| {
                let late = self.late.take().expect("somebody wants the line");
                self.asks(late);
                self.turns.next()
            });
            let (id, bytes) = turn.expect("a line that somebody wants is not idle");
            *self.had.entry(id).or_default() += bytes;
            self.carried += bytes;
            let asks = if self.asks_late { self.late.replace(id) } else { Some(id) };
            if let Some(asks) = asks {
                self.asks(asks);
            }
        }

        fn carry(&mut self, bytes: u64) {
            let end = self.carried + bytes;
            while self.carried < end {
                self.carries();
            }
        }

        /// Bytes the line carries until a stream has had so many.
        fn until(&mut self, id: u64, bytes: u64) -> u64 {
            let before = self.carried;
            while self.had.get(&id).copied().unwrap_or_default() < bytes {
                self.carries();
            }
            self.carried - before
        }

        /// What the open streams of somebody have had.
        fn of(&self, name: &str) -> u64 {
            let own = self.streams.iter().filter(|(_, (owner, _))| *owner == account(name));
            own.map(|(id, _)| self.had.get(id).copied().unwrap_or_default()).sum()
        }
    }

    fn jain(shares: &[f64]) -> f64 {
        let (sum, squares): (f64, f64) = (shares.iter().sum(), shares.iter().map(|share| share * share).sum());
        sum * sum / (shares.len() as f64 * squares)
    }

    fn seeded() -> ProptestConfig {
        let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        if config.rng_seed == RngSeed::Random {
            config.rng_seed = RngSeed::Fixed(rand::random());
        }
        println!("PROPTEST_RNG_SEED={}", config.rng_seed);
        config
    }

    proptest! {
        #![proptest_config(seeded())]

        #[test]
        fn eight_streams_of_one_person_get_what_one_of_another_gets(
            sizes in proptest::collection::vec(64 * KIB..2 * MIB, 9),
            streams in 1..=8_usize,
        ) {
            let mut line = Line::default();
            for size in &sizes[..streams] {
                line.opens("many", 1.0, *size);
            }
            line.opens("one", 1.0, sizes[8]);
            line.carry(64 * MIB);
            let index = jain(&[line.of("many") as f64, line.of("one") as f64]);
            prop_assert!(index >= 0.95, "{} {}: {}", line.of("many"), line.of("one"), index);
        }

        #[test]
        fn weights_hold_and_nobody_starves(
            people in proptest::collection::vec((0.5..4.0_f64, 32 * KIB..512 * KIB, 1..4_usize), 2..6),
        ) {
            let mut line = Line::default();
            for (at, (weight, size, streams)) in people.iter().enumerate() {
                for _ in 0..*streams {
                    line.opens(&at.to_string(), *weight, *size);
                }
            }
            line.carry(128 * MIB);
            let shares: Vec<f64> =
                people.iter().enumerate().map(|(at, (weight, ..))| line.of(&at.to_string()) as f64 / weight).collect();
            prop_assert!(jain(&shares) >= 0.95, "{:?}", shares);
            prop_assert!(line.streams.keys().all(|id| line.had.contains_key(id)), "{:?}", line.had);
        }

        #[test]
        fn whoever_comes_and_goes_loses_no_turn_and_leaves_none_behind(
            steps in proptest::collection::vec((0..3_u8, 0..4_u8, 1..MIB), 1..300),
        ) {
            let (mut turns, mut waiting, mut open) = (Turns::default(), BTreeSet::new(), Vec::new());
            for (number, (step, who, bytes)) in steps.into_iter().enumerate() {
                let (id, who) = (number as u64, account(&who.to_string()));
                match step {
                    0 => {
                        turns.enter(&who, 1.0, id);
                        turns.ask(&who, id, whole(bytes));
                        waiting.insert(id);
                        open.push((who, id));
                    }
                    1 if !open.is_empty() => {
                        let (who, id) = open.swap_remove(bytes as usize % open.len());
                        turns.leave(&who, id);
                        waiting.remove(&id);
                    }
                    _ => match turns.next() {
                        Some((id, _)) => prop_assert!(waiting.remove(&id), "{} did not wait", id),
                        None => prop_assert!(waiting.is_empty(), "{:?} wait for an idle line", waiting),
                    },
                }
            }
            while let Some((id, _)) = turns.next() {
                prop_assert!(waiting.remove(&id));
            }
            prop_assert!(waiting.is_empty(), "{:?}", waiting);
        }
    }

    #[test]
    fn a_small_answer_goes_ahead_of_what_is_pulled_and_of_its_persons_own_pull() {
        for (name, asks_late) in [("somebody else", false), ("somebody else", true), ("many", false), ("many", true)] {
            let mut line = Line { asks_late, ..Line::default() };
            for _ in 0..8 {
                line.opens("many", 1.0, 256 * KIB);
                line.opens("others", 1.0, 256 * KIB);
            }
            line.carry(64 * MIB);
            let small = line.opens(name, 1.0, 256 * KIB);
            let alone = 768 * KIB;
            let needed = line.until(small, alone);
            assert!(needed <= 2 * alone, "{name} {asks_late}: {needed}");
        }
    }

    #[test]
    fn small_answers_one_after_the_other_take_no_more_than_a_share() {
        let mut line = Line::default();
        line.opens("pulls", 1.0, 256 * KIB);
        line.carry(8 * MIB);
        let before = line.of("pulls");
        let mut cut_up = 0;
        while cut_up < 64 * MIB {
            let id = line.opens("cuts up", 1.0, 256 * KIB);
            line.until(id, 512 * KIB);
            line.closes(id);
            cut_up += 512 * KIB;
        }
        let pulled = line.of("pulls") - before;
        assert!(pulled >= cut_up - 3 * MIB, "{pulled} against {cut_up}");
    }

    #[test]
    fn young_streams_of_a_person_do_not_keep_an_old_one_of_theirs_from_everything() {
        let mut line = Line::default();
        let old = line.opens("ann", 1.0, 256 * KIB);
        line.carry(2 * MIB);
        let before = line.had[&old];
        for _ in 0..64 {
            let young = line.opens("ann", 1.0, 256 * KIB);
            line.until(young, 512 * KIB);
            line.closes(young);
        }
        assert!(line.had[&old] - before >= 4 * MIB, "{}", line.had[&old] - before);
    }

    #[test]
    fn what_somebody_does_not_ask_for_is_given_to_others_and_is_not_owed() {
        let mut line = Line::default();
        line.opens("ann", 1.0, 256 * KIB);
        line.turns.enter(&account("idle"), 1.0, 99);
        line.carry(64 * MIB);
        assert_eq!(line.of("ann"), line.carried);
        line.streams.insert(99, (account("idle"), 256 * KIB));
        line.turns.ask(&account("idle"), 99, whole(256 * KIB));
        let before = line.of("ann");
        line.carry(16 * MIB);
        let (ann, idle) = (line.of("ann") - before, line.of("idle"));
        assert!(idle.abs_diff(ann) <= 4 * MIB, "{ann} {idle}");
    }

    #[test]
    fn a_stream_that_asks_a_little_late_loses_nothing() {
        let mut line = Line { asks_late: true, ..Line::default() };
        for _ in 0..8 {
            line.opens("many", 1.0, 256 * KIB);
        }
        line.opens("one", 1.0, 256 * KIB);
        line.carry(64 * MIB);
        assert!(line.of("one").abs_diff(line.of("many")) <= 2 * MIB, "{} {}", line.of("one"), line.of("many"));
    }

    /// Streams of one person with messages of 64 pieces of 4 KiB, of which so many pieces go: whose each was.
    fn in_pieces(turns: &mut Turns, streams: u64, pieces: u64) -> Vec<u64> {
        let ann = account("ann");
        let mut sent = HashMap::new();
        for id in 0..streams {
            turns.enter(&ann, 1.0, id);
            turns.ask(&ann, id, whole(4 * KIB));
        }
        let mut order = Vec::new();
        for _ in 0..pieces {
            let (id, _) = turns.next().unwrap();
            order.push(id);
            let sent = sent.entry(id).or_insert(0_u64);
            *sent += 1;
            turns.ask(&ann, id, Piece { bytes: 4 * KIB, goes_on: !sent.is_multiple_of(64) });
        }
        order
    }

    #[test]
    fn a_message_that_has_begun_goes_on_before_another_of_its_person_begins() {
        let order = in_pieces(&mut Turns::new(128 * KIB), 8, 8 * 64 * 9);
        // Once all are old: younger ones take turns with older ones.
        let later = &order[8 * 64 * 5..];
        let changes = later.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(changes <= later.len() / 64 + 8, "{changes} changes within {} pieces", later.len());
        let counts: Vec<usize> = (0..8).map(|id| order.iter().filter(|other| **other == id).count()).collect();
        assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 128, "{counts:?}");
    }

    #[test]
    fn a_small_answer_waits_for_one_piece_of_its_persons_pull_at_most_whatever_that_ones_age() {
        for before in [100, 10_000] {
            let mut turns = Turns::new(128 * KIB);
            in_pieces(&mut turns, 1, before);
            turns.enter(&account("ann"), 1.0, 99);
            turns.ask(&account("ann"), 99, whole(2 * KIB));
            let (first, second) = (turns.next().unwrap().0, turns.next().unwrap().0);
            assert!(first == 99 || second == 99, "after {before} pieces: {first} {second}");
        }
    }

    #[test]
    fn small_answers_without_end_leave_a_fifth_to_their_persons_pull() {
        let (mut turns, ann) = (Turns::new(128 * KIB), account("ann"));
        in_pieces(&mut turns, 1, 10_000);
        let mut had = [0, 0];
        for id in 1000..3000 {
            turns.enter(&ann, 1.0, id);
            turns.ask(&ann, id, whole(8 * KIB));
            loop {
                let (next, bytes) = turns.next().unwrap();
                had[usize::from(next == id)] += bytes;
                if next == id {
                    break;
                }
                turns.ask(&ann, next, Piece { bytes: 4 * KIB, goes_on: true });
            }
            turns.leave(&ann, id);
        }
        let share = had[0] as f64 / (had[0] + had[1]) as f64;
        assert!((0.15..0.3).contains(&share), "{share} of {had:?}");
    }

    #[test]
    fn what_one_more_stream_would_have_is_foretold() {
        let mut line = Line::default();
        assert_eq!(line.turns.share(&account("ann"), 1.0), 1.0);
        line.opens("bob", 3.0, KIB);
        line.opens("ann", 1.0, KIB);
        assert_eq!(line.turns.share(&account("ann"), 1.0), 0.125);
        assert_eq!(line.turns.share(&account("cid"), 4.0), 0.5);
    }

    #[test]
    fn people_are_told_apart_by_name_and_the_anonymous_by_address() {
        let here = "10.0.0.1".parse().ok();
        let there = "10.0.0.2".parse().ok();
        let ann = Principal { name: "ann".to_owned(), ..Principal::anonymous() };
        assert_eq!(Account::of(&ann, here), Account::of(&ann, there));
        let nobody = Principal::anonymous();
        assert_ne!(Account::of(&nobody, here), Account::of(&nobody, there));
        assert_eq!(Account::of(&nobody, here), Account::of(&nobody, here));
    }
}
