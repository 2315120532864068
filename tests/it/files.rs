//! The file source, end to end on real files: every kind of bad input by name, every packing, and what each thing
//! that can happen to a file means in each mode.

mod changes;
mod formats;
mod listing;
mod round_trip;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use lakegate::config::{
    ColumnDefinition, CsvOptions, FileFormat, FileSource, LoadSettings, TableDefinition, TableSource,
};
use lakegate::error::{Classify, ErrorKind};
use lakegate::model::{CarriedFile, ChangeKind, FileStatus, LoadMode, Location, Reject};
use lakegate::runtime::clock::{Clock, ManualClock};
use lakegate::source::files::FilesSource;
use lakegate::source::{Known, ReadingEnd, Source, SourceError, SourceEvent};

/// A folder of files, a definition that reads them, and what a table would know of them.
struct Landing {
    folder: tempfile::TempDir,
    definition: TableDefinition,
    clock: ManualClock,
    known: Known,
}

/// What one reading gave.
struct Loaded {
    schema: SchemaRef,
    batches: Vec<(ChangeKind, Option<usize>, RecordBatch)>,
    rejects: Vec<Reject>,
    progress: u64,
    total: u64,
    end: ReadingEnd,
}

fn csv() -> FileFormat {
    FileFormat::Csv(csv_options())
}

fn csv_options() -> CsvOptions {
    CsvOptions {
        delimiter: b',',
        quote: Some(b'"'),
        header: true,
        encoding: encoding_rs::UTF_8,
        null_words: vec![String::new()],
        comment: None,
    }
}

fn column(name: &str, kind: &str) -> ColumnDefinition {
    ColumnDefinition {
        name: name.to_owned(),
        from: None,
        column_type: kind.parse().unwrap(),
        formats: vec![],
        nullable: true,
    }
}

impl Landing {
    fn new(glob: &str, format: FileFormat) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = FileSource {
            files: Location::Local(folder.path().join(glob)),
            connection: None,
            format,
            settle: Duration::ZERO,
        };
        let definition = TableDefinition {
            name: "adhoc.things".parse().unwrap(),
            defined_in: folder.path().join("things.toml"),
            content_hash: "first".to_owned(),
            source: TableSource::Files(vec![source]),
            load: LoadSettings {
                schedule: None,
                mode: LoadMode::Append,
                max_rejects: 1.0,
                max_rewrite: None,
                max_lag: Duration::from_secs(3600),
                group: None,
            },
            key: vec![],
            columns: vec![],
            description: None,
            writable: false,
            foreign_keys: Vec::new(),
        };
        let clock = ManualClock::new(chrono::Utc::now());
        Self { folder, definition, clock, known: Known::default() }
    }

    fn mode(mut self, mode: LoadMode) -> Self {
        self.definition.load.mode = mode;
        self
    }

    fn columns(mut self, columns: &[(&str, &str)]) -> Self {
        self.definition.columns = columns.iter().map(|(name, kind)| column(name, kind)).collect();
        self
    }

    /// The blocks the files are named in.
    fn sources(&mut self) -> &mut Vec<FileSource> {
        let TableSource::Files(sources) = &mut self.definition.source else { unreachable!() };
        sources
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file that was last changed so many minutes after a fixed time.
    fn put(&self, name: &str, content: impl AsRef<[u8]>, minute: u64) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        touch(&path, minute);
    }

    async fn try_load(&mut self) -> Result<Option<Loaded>, SourceError> {
        let source = FilesSource::new(&self.definition, Arc::new(self.clock.clone()))?;
        let Some(mut reading) = source.open(&self.known).await? else { return Ok(None) };
        let (mut batches, mut rejects, mut progress) = (vec![], vec![], 0);
        let end = loop {
            match reading.events.next().await.expect("the last event is the end")? {
                SourceEvent::Changes(change) => {
                    assert_eq!(change.rows.schema(), reading.schema);
                    batches.push((change.kind, change.file, change.rows));
                }
                SourceEvent::Rejects(more) => rejects.extend(more),
                SourceEvent::Progress(bytes) => progress += bytes,
                SourceEvent::Piece(_) | SourceEvent::Complete(_) | SourceEvent::Hurry(_) => {
                    panic!("files have no pieces")
                }
                SourceEvent::End(end) => break end,
            }
        };
        assert!(reading.events.next().await.is_none(), "nothing comes after the end");
        self.remember(&reading.schema, &end);
        let total = reading.total_bytes.unwrap();
        Ok(Some(Loaded { schema: reading.schema, batches, rejects, progress, total, end }))
    }

    async fn load(&mut self) -> Loaded {
        self.try_load().await.unwrap().expect("there is something to load")
    }

    async fn failure(&mut self) -> SourceError {
        match self.try_load().await {
            Err(error) => error,
            Ok(_) => panic!("the reading should have failed"),
        }
    }

    /// Does with what was loaded what a load does.
    fn remember(&mut self, schema: &SchemaRef, end: &ReadingEnd) {
        let mut files: HashMap<String, CarriedFile> = (*self.known.files).clone();
        for (index, file) in end.files.iter().enumerate() {
            let mut file = file.clone();
            if self.definition.load.mode == LoadMode::Mirror && file.status == FileStatus::Loaded {
                file.data_files = vec![format!("data of {index} {}", file.content_hash)];
            }
            files.insert(file.path.clone(), file);
        }
        self.known = Known {
            position: Some(end.position.clone()),
            files: Arc::new(files),
            schema: Some(Arc::clone(schema)),
            ..Known::default()
        };
    }
}

impl Loaded {
    /// The rows as JSON objects, NULLs left out.
    fn rows(&self) -> Vec<String> {
        let mut writer = arrow_json::LineDelimitedWriter::new(Vec::new());
        let batches: Vec<&RecordBatch> = self.batches.iter().map(|(_, _, rows)| rows).collect();
        writer.write_batches(&batches).unwrap();
        writer.finish().unwrap();
        String::from_utf8(writer.into_inner()).unwrap().lines().map(str::to_owned).collect()
    }

    fn types(&self) -> Vec<String> {
        let kind = |arrow| lakegate::model::ColumnType::from_arrow(arrow).unwrap();
        let fields = self.schema.fields().iter();
        fields.map(|field| format!("{} {}", field.name(), kind(field.data_type()))).collect()
    }

    /// Line, column and reason of each reject.
    fn reasons(&self) -> Vec<(Option<u64>, Option<&str>, &str)> {
        self.rejects.iter().map(|reject| (reject.line, reject.column.as_deref(), reject.reason.as_str())).collect()
    }

    /// What became of each file, by name.
    fn statuses(&self) -> Vec<(String, FileStatus)> {
        let name = |path: &str| Path::new(path).file_name().unwrap().to_str().unwrap().to_owned();
        self.end.files.iter().map(|file| (name(&file.path), file.status)).collect()
    }
}

fn touch(path: &Path, minute: u64) {
    let base = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(base + Duration::from_secs(60 * minute)).unwrap();
}
