//! What a stream has to begin with for a reader that kept nothing of an earlier one: the schema, and the dictionaries in force.

use std::collections::{BTreeMap, HashMap};
use std::io;

use bytes::Bytes;
use futures::future::Either;

use crate::delivery::{Position, Tail, WireMessage};

/// Bytes of dictionaries that stay in memory for one result beside the newest: words of columns with few of them, often the same in
/// all messages. A single set that is larger stays all the same.
const MOST_BYTES: usize = 1 << 20;

/// The messages of a result that later ones refer to. Where words change often those that were replaced go to the spool; where that
/// has no room, or no more, only the newest are known.
#[derive(Debug)]
pub struct Opening {
    schema: Option<WireMessage>,
    /// In order of their numbers.
    dictionaries: Vec<Dictionary>,
    /// The number of the newest dictionary of each id.
    newest: HashMap<i64, u64>,
    /// Bytes of dictionaries in memory.
    bytes: usize,
    /// The first position for which all is known.
    since: u64,
    /// Dictionaries in whose place others came.
    replaced: Tail,
    /// How many of those went to the spool.
    moved: u64,
}

#[derive(Debug)]
struct Dictionary {
    number: u64,
    id: i64,
    words: Words,
}

/// Where a dictionary's message is.
#[derive(Debug)]
enum Words {
    Here(WireMessage),
    /// Its place in the spool, and the number of the one that came in its place.
    Spooled {
        place: u64,
        replaced_by: u64,
    },
}

impl Opening {
    /// Nothing yet; what does not stay in memory goes to a tail of its own.
    pub fn new(replaced: Tail) -> Self {
        Self { schema: None, dictionaries: Vec::new(), newest: HashMap::new(), bytes: 0, since: 0, replaced, moved: 0 }
    }

    /// Takes notice of a message, by its number; to be called for each in order. What comes before this one is known then,
    /// whatever makes room: a stream may have to begin with it. What comes back writes what makes room, and may block; until it is
    /// done nothing is read.
    pub fn note(
        &mut self,
        number: u64,
        message: &WireMessage,
    ) -> Option<impl FnOnce() -> io::Result<()> + Send + 'static + use<>> {
        let message = WireMessage { app_metadata: Bytes::new(), ..message.clone() };
        if number == 0 {
            self.schema = Some(message);
            return None;
        }
        let root = arrow_ipc::root_as_message(&message.header).ok();
        let id = root.as_ref().and_then(|root| root.header_as_dictionary_batch()).map(|dictionary| dictionary.id())?;
        let mut writes = Vec::new();
        while self.bytes > MOST_BYTES {
            let Some((at, words)) = self.oldest_replaced() else { break };
            self.bytes -= len(&words);
            writes.extend(self.move_out(at, &words));
        }
        self.forget();
        self.bytes += len(&message);
        self.newest.insert(id, number);
        self.dictionaries.push(Dictionary { number, id, words: Words::Here(message) });
        (!writes.is_empty()).then_some(move || writes.into_iter().try_for_each(|write| write()))
    }

    /// What a stream begins with whose next message has this number, none of them labelled; none where that is not known
    /// any more, or not yet. What comes back reads what is in the spool, and may block.
    pub fn before(
        &self,
        number: u64,
    ) -> Option<impl FnOnce() -> io::Result<Vec<WireMessage>> + Send + 'static + use<>> {
        let schema = self.schema.clone().filter(|_| number >= self.since)?;
        let in_force: BTreeMap<i64, &Words> = self
            .dictionaries
            .iter()
            .filter(|dictionary| dictionary.number < number)
            .map(|dictionary| (dictionary.id, &dictionary.words))
            .collect();
        let mut parts = Vec::with_capacity(in_force.len());
        for words in in_force.into_values() {
            parts.push(match words {
                Words::Here(message) => Either::Left(message.clone()),
                Words::Spooled { place, .. } => Either::Right(self.replaced.read(*place)?),
            });
        }
        Some(move || -> io::Result<Vec<WireMessage>> {
            let mut messages = vec![schema];
            for part in parts {
                messages.push(match part {
                    Either::Left(message) => message,
                    Either::Right(read) => read()?,
                });
            }
            Ok(messages)
        })
    }

    /// Gives the disk back, and uses none from now on.
    pub fn give_up(&mut self) {
        self.replaced.give_up();
    }

    /// The oldest dictionary in memory in whose place another came.
    fn oldest_replaced(&self) -> Option<(usize, WireMessage)> {
        self.dictionaries.iter().enumerate().find_map(|(at, dictionary)| match &dictionary.words {
            Words::Here(message) if self.newest.get(&dictionary.id) != Some(&dictionary.number) => {
                Some((at, message.clone()))
            }
            _ => None,
        })
    }

    /// Lets a dictionary's message be in the spool; what comes back writes it there. None where there is no room.
    fn move_out(
        &mut self,
        at: usize,
        message: &WireMessage,
    ) -> Option<impl FnOnce() -> io::Result<()> + Send + 'static + use<>> {
        let place = self.moved;
        self.moved += 1;
        if let Some((dictionary, later)) = self.dictionaries.get_mut(at..).and_then(<[_]>::split_first_mut) {
            let newer = later.iter().find(|newer| newer.id == dictionary.id);
            let replaced_by = newer.map_or(u64::MAX - 1, |newer| newer.number);
            dictionary.words = Words::Spooled { place, replaced_by };
        }
        self.replaced.put(Position { next: place, ..Position::default() }, message)
    }

    /// Forgets what is in the spool no more.
    fn forget(&mut self) {
        let (replaced, since) = (&self.replaced, &mut self.since);
        self.dictionaries.retain(|dictionary| match dictionary.words {
            Words::Spooled { place, replaced_by } if replaced.before(place).is_none() => {
                *since = (*since).max(replaced_by + 1);
                false
            }
            _ => true,
        });
    }
}

fn len(message: &WireMessage) -> usize {
    message.header.len() + message.body_len()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, RecordBatch, StringArray};
    use arrow::buffer::Buffer;
    use arrow::datatypes::Int32Type;
    use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};

    use super::*;
    use crate::delivery::Spool;

    /// An opening with so many bytes of disk, whose words were all written.
    fn opening(disk: u64) -> Opening {
        Opening::new(Spool::new(None, disk).begin())
    }

    fn note(opening: &mut Opening, number: u64, message: &WireMessage) {
        if let Some(write) = opening.note(number, message) {
            write().unwrap();
        }
    }

    fn before(opening: &Opening, number: u64) -> Option<Vec<WireMessage>> {
        opening.before(number).map(|read| read().unwrap())
    }

    /// The dictionary message and the rows of one batch with a word.
    fn messages(word: &str) -> [WireMessage; 2] {
        let values = StringArray::from(vec![word]);
        let column = DictionaryArray::<Int32Type>::new(vec![0].into(), Arc::new(values));
        let batch = RecordBatch::try_from_iter([("word", Arc::new(column) as _)]).unwrap();
        let (generator, options) = (IpcDataGenerator::default(), IpcWriteOptions::default());
        let mut tracker = DictionaryTracker::new(false);
        let _ = generator.schema_to_bytes_with_dictionary_tracker(&batch.schema(), &mut tracker, &options);
        let mut context = IpcWriteContext::default();
        let (words, rows) = generator.encode(&batch, &mut tracker, &options, &mut context).unwrap();
        [words.into_iter().next().unwrap(), rows].map(|encoded| WireMessage {
            header: encoded.ipc_message.into(),
            body: vec![Buffer::from(encoded.arrow_data)],
            app_metadata: Bytes::from_static(b"label"),
        })
    }

    fn unlabelled(message: &WireMessage) -> WireMessage {
        WireMessage { app_metadata: Bytes::new(), ..message.clone() }
    }

    #[test]
    fn a_stream_opens_with_the_dictionaries_in_force_at_its_position() {
        let schema = WireMessage { header: Bytes::from_static(b"schema"), ..WireMessage::default() };
        let ([one, rows], [other, _]) = (messages("one"), messages("other"));
        let mut opening = opening(0);
        assert!(before(&opening, 1).is_none());
        for (number, message) in [&schema, &one, &rows, &rows, &other, &rows].into_iter().enumerate() {
            note(&mut opening, number as u64, message);
        }
        assert_eq!(before(&opening, 1).unwrap(), std::slice::from_ref(&schema));
        for (number, words) in [(2, &one), (4, &one), (5, &other), (6, &other)] {
            assert_eq!(before(&opening, number).unwrap(), [schema.clone(), unlabelled(words)]);
        }
    }

    #[test]
    fn without_disk_only_the_newest_of_words_that_change_often_are_kept() {
        let mut opening = opening(0);
        note(&mut opening, 0, &WireMessage::default());
        let many = "x".repeat(MOST_BYTES / 3);
        for number in 1..10 {
            note(&mut opening, number, &messages(&format!("{many}{number}"))[0]);
        }
        assert!(opening.bytes <= MOST_BYTES + MOST_BYTES / 2);
        let known = |opening: &Opening, number| opening.before(number).is_some();
        assert!(!known(&opening, 5) && !known(&opening, 7) && known(&opening, 8));
        let (large, larger) = (messages(&"x".repeat(2 * MOST_BYTES)), messages(&"x".repeat(3 * MOST_BYTES)));
        note(&mut opening, 10, &large[0]);
        assert!(!known(&opening, 8) && known(&opening, 10));
        assert_eq!(before(&opening, 11).unwrap()[1], unlabelled(&large[0]));
        note(&mut opening, 11, &larger[0]);
        assert_eq!(before(&opening, 11).unwrap()[1], unlabelled(&large[0]), "what comes before the newest is known");
        assert_eq!(before(&opening, 12).unwrap()[1], unlabelled(&larger[0]));
    }

    #[test]
    fn large_words_that_were_replaced_are_read_from_the_spool_as_long_as_it_has_room() {
        let spool = Spool::new(None, 16 << 20);
        let mut opening = Opening::new(spool.begin());
        note(&mut opening, 0, &WireMessage::default());
        let words: Vec<WireMessage> = (1..=12)
            .map(|number| messages(&format!("{number}{}", "x".repeat(3 * MOST_BYTES / 2)))[0].clone())
            .collect();
        for (number, message) in (1..).zip(&words) {
            note(&mut opening, number, message);
            assert!(opening.bytes <= 2 * len(message), "the newest and the one before");
        }
        // Two segments of 8 MiB hold five dictionaries each; as those are full the first five make room.
        for (number, message) in (1..).zip(&words) {
            assert_eq!(before(&opening, number + 1).map(|opens| opens[1].clone()), Some(unlabelled(message)));
        }
        for number in 13..=16 {
            note(&mut opening, number, &words[0]);
        }
        assert!(before(&opening, 4).is_none() && before(&opening, 9).is_some());
        assert!(opening.dictionaries.len() < 14, "what is gone is forgotten");
        assert!(spool.is_full());
        opening.give_up();
        assert!(!spool.is_full() && before(&opening, 9).is_none() && before(&opening, 17).is_some());
    }
}
