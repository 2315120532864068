//! Changing rows by where they stand: file-level copy-on-write for tables with a key and without.
//!
//! Whoever edits has found the rows first, by reading [`Snapshot::numbered`]. The data files that hold such a row are
//! written anew without it, or with another in its place; all others stay. The rows of a file keep their order, so a
//! sorted file stays sorted; rows whose key changes go to files of their own.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch};
use arrow::compute::{filter_record_batch, interleave_record_batch};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use deltalake::kernel::{Action, Add};
use deltalake::protocol::DeltaOperation;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use crate::error::ErrorKind;
use crate::lake::apply::Base;
use crate::lake::schema::Conform;
use crate::lake::writer::{DataFiles, WriterPlace};
use crate::lake::{Attempt, LakeError, Snapshot, Staged, TableWriter, WritePlan};
use crate::model::{ChangeBatch, ChangeKind, TableName};

/// What is done with the rows that are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// They go.
    Delete,
    /// Others stand in their place, with the same key.
    Replace,
    /// Others come for them, with keys of their own.
    Move,
}

/// What editing staged.
pub struct Edited {
    /// The data files, and what makes them count.
    pub staged: Staged,
    /// Rows that went or were replaced.
    pub rows: u64,
    /// Names of the data files with rows whose key may be another than before.
    pub moved: HashSet<String>,
}

/// Rows to edit, in order of their places: the columns [`crate::lake::FILE_COLUMN`] and [`crate::lake::ROW_COLUMN`]
/// first, then for [`Edit::Replace`] and [`Edit::Move`] every column of the table.
pub type Edits<'a> = BoxStream<'a, Result<RecordBatch, LakeError>>;

impl Attempt {
    /// Writes the data files anew that hold rows of `edits`. `key` are the columns that name a row, where any do.
    ///
    /// # Errors
    /// When files cannot be read or written, or the edits fail; what was written is removed.
    pub async fn edit(&self, edit: Edit, key: &[String], edits: Edits<'_>) -> Result<Edited, LakeError> {
        let Some(snapshot) = self.snapshot() else {
            return Err(LakeError::new(ErrorKind::Internal, "a table without a version has no rows to change"));
        };
        let place = self.writer_place();
        let files = DataFiles::new(&place, &snapshot.schema(), key, &[])?;
        let plan = WritePlan::append(&snapshot.schema(), key);
        let moved = if edit == Edit::Move { Some(self.writer(plan)?) } else { None };
        let editor = Editor { edit, snapshot: Arc::clone(snapshot), files: files.clone(), moved, rows: 0 };
        let edited = editor.run(&place, edits).await;
        if edited.is_err() {
            files.discard().await;
        }
        edited
    }
}

struct Editor {
    edit: Edit,
    snapshot: Arc<Snapshot>,
    files: DataFiles,
    /// Takes the rows that move.
    moved: Option<TableWriter>,
    rows: u64,
}

impl Editor {
    async fn run(mut self, place: &WriterPlace, edits: Edits<'_>) -> Result<Edited, LakeError> {
        let done = self.rewrite(place, edits).await;
        let (adds, touched) = match done {
            Ok(done) => done,
            Err(error) => {
                if let Some(moved) = self.moved {
                    moved.abort().await;
                }
                return Err(error);
            }
        };
        let moved = match self.moved {
            Some(moved) => Some(moved.finish(&[]).await?),
            None => None,
        };
        let operation = match self.edit {
            Edit::Delete => DeltaOperation::Delete { predicate: None },
            Edit::Replace | Edit::Move => DeltaOperation::Update { predicate: None },
        };
        let mut staged = Staged { operation, ..Staged::nothing() };
        staged.rows_written = if self.edit == Edit::Delete { 0 } else { self.rows };
        staged.remove(&self.snapshot, |index| touched.contains(&index));
        staged.add(adds);
        let mut names = HashSet::new();
        for action in moved.into_iter().flat_map(|moved| moved.actions) {
            if let Action::Add(add) = action {
                names.insert(add.path.clone());
                staged.add([add]);
            }
        }
        Ok(Edited { staged, rows: self.rows, moved: names })
    }

    async fn rewrite(
        &mut self,
        place: &WriterPlace,
        edits: Edits<'_>,
    ) -> Result<(Vec<Add>, HashSet<usize>), LakeError> {
        let table = place.place.name().clone();
        let conform = Conform::new(table.clone(), self.snapshot.schema());
        let base = Base::new(Arc::clone(&self.snapshot), Arc::clone(&place.environment), conform);
        let every: HashSet<usize> = (0..self.snapshot.files()).collect();
        let sorted = self.files.sorted_by().map(|by| base.sorted_files(&every, by)).unwrap_or_default();
        let mut found = Found { edits, waiting: VecDeque::new(), table };
        let (mut adds, mut touched) = (Vec::new(), HashSet::new());
        while let Some(file) = found.next_file().await? {
            if file >= self.snapshot.files() || !touched.insert(file) {
                return Err(found.out_of_order());
            }
            let files = if sorted.contains(&file) { self.files.clone() } else { self.files.unsorted() };
            let mut open = files.begin();
            match self.rewrite_file(&base, file, &mut found, &mut open).await {
                Ok(()) => adds.extend(open.close().await?),
                Err(error) => {
                    open.abort().await;
                    return Err(error);
                }
            }
        }
        Ok((adds, touched))
    }

    async fn rewrite_file(
        &mut self,
        base: &Base,
        file: usize,
        found: &mut Found<'_>,
        open: &mut crate::lake::writer::OpenFiles,
    ) -> Result<(), LakeError> {
        let table = found.table.clone();
        let what = move |cause| LakeError::rows(format!("cannot read a data file of table {table}"), cause);
        let mut rows = base.read(&[file])?.map_err(what);
        let mut first = 0;
        while let Some(batch) = rows.next().await.transpose()? {
            let pieces = found.take(file, first, batch.num_rows()).await?;
            let kept = self.edited(&batch, first, &pieces).await.map_err(|error| found.failed(error))?;
            first += batch.num_rows();
            if kept.num_rows() > 0 {
                open.write(&kept).await?;
            }
        }
        match found.next_file().await? {
            // A row that the file does not have.
            Some(next) if next == file => Err(found.out_of_order()),
            _ => Ok(()),
        }
    }

    /// The rows of a batch, the first of which is row `first` of its file, with the edits `pieces`.
    async fn edited(
        &mut self,
        batch: &RecordBatch,
        first: usize,
        pieces: &[RecordBatch],
    ) -> Result<RecordBatch, EditError> {
        if pieces.is_empty() {
            return Ok(batch.clone());
        }
        let places = |piece: &RecordBatch| -> Vec<usize> {
            let rows = piece.column(1).as_primitive::<Int64Type>().values();
            rows.iter().map(|row| usize::try_from(*row).unwrap_or(usize::MAX).saturating_sub(first)).collect()
        };
        let others = |piece: &RecordBatch| {
            let columns: Vec<usize> = (2..piece.num_columns()).collect();
            piece.project(&columns)
        };
        self.rows += pieces.iter().map(|piece| piece.num_rows() as u64).sum::<u64>();
        if self.edit == Edit::Replace {
            let sources = pieces.iter().map(others).collect::<Result<Vec<_>, _>>()?;
            let mut indices: Vec<(usize, usize)> = (0..batch.num_rows()).map(|row| (0, row)).collect();
            for (number, piece) in pieces.iter().enumerate() {
                for (row, place) in places(piece).into_iter().enumerate() {
                    indices[place] = (number + 1, row);
                }
            }
            let batches: Vec<&RecordBatch> = std::iter::once(batch).chain(&sources).collect();
            return Ok(interleave_record_batch(&batches, &indices)?);
        }
        let mut kept = BooleanBufferBuilder::new(batch.num_rows());
        kept.append_n(batch.num_rows(), true);
        for piece in pieces {
            places(piece).into_iter().for_each(|place| kept.set_bit(place, false));
            if let Some(moved) = &mut self.moved {
                let rows = others(piece)?;
                moved.write(ChangeBatch { kind: ChangeKind::Append, rows, file: None }).await?;
            }
        }
        Ok(filter_record_batch(batch, &BooleanArray::new(kept.finish(), None))?)
    }
}

/// What can go wrong with one batch.
enum EditError {
    Arrow(ArrowError),
    Lake(LakeError),
}

impl From<ArrowError> for EditError {
    fn from(error: ArrowError) -> Self {
        Self::Arrow(error)
    }
}

impl From<LakeError> for EditError {
    fn from(error: LakeError) -> Self {
        Self::Lake(error)
    }
}

/// The edits as they come.
struct Found<'a> {
    edits: Edits<'a>,
    waiting: VecDeque<RecordBatch>,
    table: TableName,
}

impl Found<'_> {
    /// The file of the next edit.
    async fn next_file(&mut self) -> Result<Option<usize>, LakeError> {
        while self.waiting.is_empty() {
            match self.edits.next().await.transpose()? {
                Some(batch) if batch.num_rows() > 0 => self.waiting.push_back(batch),
                Some(_) => {}
                None => return Ok(None),
            }
        }
        Ok(self.waiting.front().map(|batch| place(batch, 0, 0)))
    }

    /// The edits of `count` rows of a file from row `first` on, each row once.
    async fn take(&mut self, file: usize, first: usize, count: usize) -> Result<Vec<RecordBatch>, LakeError> {
        let (mut pieces, mut last) = (Vec::new(), None);
        while self.next_file().await? == Some(file) {
            let Some(batch) = self.waiting.pop_front() else { break };
            let within = |row: usize| place(&batch, 0, row) == file && place(&batch, 1, row) < first + count;
            let end = (0..batch.num_rows()).take_while(|row| within(*row)).count();
            for row in 0..end {
                let here = place(&batch, 1, row);
                if here < first || last.is_some_and(|last| last >= here) {
                    return Err(self.out_of_order());
                }
                last = Some(here);
            }
            if end > 0 {
                pieces.push(batch.slice(0, end));
            }
            if end < batch.num_rows() {
                self.waiting.push_front(batch.slice(end, batch.num_rows() - end));
                break;
            }
        }
        Ok(pieces)
    }

    fn out_of_order(&self) -> LakeError {
        let text = format!("the rows of table {} to be changed came out of order or twice", self.table);
        LakeError::new(ErrorKind::Internal, text)
    }

    fn failed(&self, error: EditError) -> LakeError {
        match error {
            EditError::Lake(error) => error,
            EditError::Arrow(cause) => {
                LakeError::because(ErrorKind::Internal, format!("cannot change rows of table {}", self.table), cause)
            }
        }
    }
}

/// What the file column (0) or the row column (1) says of a row.
fn place(batch: &RecordBatch, column: usize, row: usize) -> usize {
    usize::try_from(batch.column(column).as_primitive::<Int64Type>().value(row)).unwrap_or(usize::MAX)
}
