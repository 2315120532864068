//! What a stream has to begin with for a reader that kept nothing of an earlier one: the schema, and the dictionaries in force.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::delivery::WireMessage;

/// Bytes of dictionaries kept for one result beside the newest: words of columns with few of them, often the same in all messages.
/// A single set that is larger is kept all the same.
const MOST_BYTES: usize = 1 << 20;

/// The messages of a result that later ones refer to. Where words change often only the newest are known.
#[derive(Debug, Default)]
pub struct Opening {
    schema: Option<WireMessage>,
    dictionaries: Vec<Dictionary>,
    bytes: usize,
    /// The first position for which all is known.
    since: u64,
}

#[derive(Debug)]
struct Dictionary {
    number: u64,
    id: i64,
    message: WireMessage,
}

impl Opening {
    /// Takes notice of a message, by its number; to be called for each in order. What comes before this one is known then,
    /// whatever makes room: a stream may have to begin with it.
    pub fn note(&mut self, number: u64, message: &WireMessage) {
        let message = WireMessage { app_metadata: Bytes::new(), ..message.clone() };
        if number == 0 {
            self.schema = Some(message);
            return;
        }
        let root = arrow_ipc::root_as_message(&message.header).ok();
        let id = root.as_ref().and_then(|root| root.header_as_dictionary_batch()).map(|dictionary| dictionary.id());
        let Some(id) = id else { return };
        while self.bytes > MOST_BYTES {
            let Some((place, replaced_by)) = self.oldest_replaced() else { break };
            self.bytes -= len(&self.dictionaries.remove(place).message);
            self.since = self.since.max(replaced_by + 1);
        }
        self.bytes += len(&message);
        self.dictionaries.push(Dictionary { number, id, message });
    }

    /// What a stream begins with whose next message has this number, none of them labelled; none where that is not known
    /// any more, or not yet.
    pub fn before(&self, number: u64) -> Option<Vec<WireMessage>> {
        let schema = self.schema.as_ref().filter(|_| number >= self.since)?;
        let in_force: BTreeMap<i64, &WireMessage> = self
            .dictionaries
            .iter()
            .filter(|dictionary| dictionary.number < number)
            .map(|dictionary| (dictionary.id, &dictionary.message))
            .collect();
        Some(std::iter::once(schema).chain(in_force.into_values()).cloned().collect())
    }

    /// The oldest dictionary in whose place another came, and the number of that.
    fn oldest_replaced(&self) -> Option<(usize, u64)> {
        self.dictionaries.iter().enumerate().find_map(|(place, old)| {
            let newer = self.dictionaries.iter().skip(place + 1).find(|newer| newer.id == old.id)?;
            Some((place, newer.number))
        })
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
        let mut opening = Opening::default();
        assert!(opening.before(1).is_none());
        for (number, message) in [&schema, &one, &rows, &rows, &other, &rows].into_iter().enumerate() {
            opening.note(number as u64, message);
        }
        assert_eq!(opening.before(1).unwrap(), std::slice::from_ref(&schema));
        for (number, words) in [(2, &one), (4, &one), (5, &other), (6, &other)] {
            assert_eq!(opening.before(number).unwrap(), [schema.clone(), unlabelled(words)]);
        }
    }

    #[test]
    fn where_words_change_often_only_the_newest_are_kept() {
        let mut opening = Opening::default();
        opening.note(0, &WireMessage::default());
        let many = "x".repeat(MOST_BYTES / 3);
        for number in 1..10 {
            opening.note(number, &messages(&format!("{many}{number}"))[0]);
        }
        assert!(opening.bytes <= MOST_BYTES + MOST_BYTES / 2);
        assert!(opening.before(5).is_none() && opening.before(7).is_none() && opening.before(8).is_some());
        let (large, larger) = (messages(&"x".repeat(2 * MOST_BYTES)), messages(&"x".repeat(3 * MOST_BYTES)));
        opening.note(10, &large[0]);
        assert!(opening.before(8).is_none() && opening.before(10).is_some());
        assert_eq!(opening.before(11).unwrap()[1], unlabelled(&large[0]));
        opening.note(11, &larger[0]);
        assert_eq!(opening.before(11).unwrap()[1], unlabelled(&large[0]), "what comes before the newest is known");
        assert_eq!(opening.before(12).unwrap()[1], unlabelled(&larger[0]));
    }
}
