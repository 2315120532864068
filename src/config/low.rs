//! The low form: what the user wrote, with places. This is where keys, their meaning and their defaults are
//! declared; `docs/configuration.md` tells them at length.

use crate::config::access::{LowAccess, LowTls};
use crate::config::line::{LowLine, LowResults};
use crate::config::reader::{At, Named, OneOrMany, low_table};
use crate::config::secret::SecretSource;
use crate::config::settings::{Encrypt, Isolation, LogFormat, TextsKept};
use crate::config::sqlserver::values::{HostName, Hours, ObjectName, PacketSize, Port, Rate};
use crate::config::table::{Method, Oversize, SubMicroseconds, Times as TimesOfDay, Timestamps, Variants};
use crate::config::values::{
    Address, Byte, Choice, Chosen, Count, CronLine, DateFormat, EncodingLabel, Endpoint, FormatVersion, LogLevel,
    Share, Size, SizeOrNone, Span, Text, Times,
};
use crate::model::{ColumnType, LoadMode};

low_table! {
    /// The whole of `lakegate.toml`.
    LowLakegate {
        /// Version of this format.
        version: FormatVersion = 1;
        /// Where the lake is.
        lake: LowLake = {};
        /// What the program may use.
        limits: LowLimits = {};
        /// Where the server listens, and how connections are encrypted.
        serve: LowServe = {};
        /// Who is let in, and who may see what.
        access: LowAccess = {};
        /// Lines that people share.
        line: Vec<At<LowLine>> = [];
        /// How results are sent where nobody says otherwise.
        results: LowResults = {};
        /// How the tickets of results are sealed.
        tickets: LowTickets = {};
        /// What is kept of results for clients that are cut off.
        spool: LowSpool = {};
        /// What is kept of statements and sessions.
        history: LowHistory = {};
        /// What is logged, and how.
        logs: LowLogs = {};
        /// Systems by name; table definitions and the lake refer to them.
        connections: Named<LowConnection> = {};
    }
}

low_table! {
    /// `[lake]`
    LowLake {
        /// Folder or s3://bucket/prefix that holds the tables.
        location: Text = "lake";
        /// Name of the connection that reaches the bucket; without it the standard AWS environment is used.
        connection: Text;
        /// Size a data file is written to reach.
        target_file_size: Size = "128MiB";
        /// How long a writer of a table in a bucket may be silent before another takes over.
        lease_lifetime: Span = "30s";
    }
}

low_table! {
    /// `[limits]`
    LowLimits {
        /// Memory of queries and loads together; above it they spill to disk. Half of the machine's memory, at least 512MiB, where nothing is given.
        memory: Size;
        /// Disk for spilled data.
        spill: Size = "100GiB";
        /// Folder for spilled data; the system's temporary folder where none is given.
        spill_folder: Text;
        /// Threads that compute; as many as the machine lets the program use where nothing is given.
        threads: Count;
        /// Tables loaded at the same time.
        parallel_tables: Count = 2;
        /// Longest a statement may compute; the time a slow line takes to carry its rows does not count.
        query_timeout: Span = "10m";
        /// How long a second writer of a table waits for the first.
        lease_wait: Span = "60s";
        /// Most memory of one statement; three quarters of memory where nothing is given.
        statement_memory: Size;
        /// Statements that compute at the same time; four for each thread, at least 8, where nothing is given.
        statements: Count;
        /// Places beyond these for members of the role admin.
        admin_statements: Count = 2;
        /// Statements that wait for their turn at most.
        queue: Count = 1000;
        /// Longest a statement waits for its turn.
        queue_wait: Span = "1m";
        /// How long a client may take nothing of a result before the result is cut.
        idle_reader: Span = "15m";
        /// Bytes of results one person may be sent within result_window; as many as they like where nothing is given.
        result_bytes: Size;
        /// The time over which result_bytes counts.
        result_window: Span = "24h";
        /// Largest result a statement may ask for, in bytes on the line, by its estimate; any where nothing is given.
        max_result_bytes: Size;
        /// Sessions of clients.
        sessions: Count = 5000;
        /// Sessions of one person.
        sessions_per_person: Count = 1000;
        /// How long a session that nobody uses is kept.
        session_idle: Span = "12h";
        /// Connections of clients.
        connections: Count = 2000;
        /// Prepared statements whose values are kept; beyond it who has most of them loses those unused for longest.
        bound_statements: Count = 10000;
        /// Memory of the values of prepared statements.
        bound_memory: Size = "64MiB";
        /// Largest message taken from a client.
        request_size: Size = "64MiB";
        /// Largest headers of one call.
        header_size: Size = "64KiB";
    }
}

low_table! {
    /// `[spool]`
    LowSpool {
        /// Disk for the last messages of results; with less than 8MiB none are kept.
        size: SizeOrNone = "1GiB";
        /// How long a result waits for a client that was cut off.
        keep: Span = "5m";
        /// Disk for whole results that are asked for again; with "0B" none are kept, and none are shared while they are made.
        cache: SizeOrNone = "4GiB";
    }
}

low_table! {
    /// `[history]`
    LowHistory {
        /// How long statements and sessions that ended are kept.
        keep: Span = "30d";
        /// Disk for each of both.
        size: Size = "256MiB";
        /// How the texts of statements are kept: full, without_literals, or none.
        texts: Chosen<TextsKept> = "full";
    }
}

impl Choice for TextsKept {
    const WORDS: &'static [(&'static str, Self)] =
        &[("full", Self::Full), ("without_literals", Self::WithoutLiterals), ("none", Self::None)];
}

low_table! {
    /// `[serve]`
    LowServe {
        /// Address of the Flight SQL service.
        flight: Address = "127.0.0.1:8815";
        /// Certificate and key; without them connections are not encrypted.
        tls: LowTls;
        /// Whether anybody who reaches the address may read everything; needed to listen beyond this machine without users.
        allow_anonymous_network: bool = false;
        /// Whether passwords and rows may go over the network in the clear; needed to listen beyond this machine without TLS.
        allow_plaintext_network: bool = false;
        /// How long running statements may go on after a request to stop.
        drain: Span = "30s";
    }
    later { "http": "the HTTP service" }
}

low_table! {
    /// `[tickets]`
    LowTickets {
        /// Key of 32 bytes in base64 or hex, as { env = "NAME" } or { file = "path" }; a key of this machine's own where none is given.
        key: SecretSource;
        /// How long a ticket can be redeemed.
        lifetime: Span = "1h";
    }
}

low_table! {
    /// `[logs]`
    LowLogs {
        /// Least level shown, or a filter as in info,lakegate::lake=debug.
        level: LogLevel = "info";
        /// Lines for people, or one JSON object a line.
        format: Chosen<LogFormat> = "human";
    }
}

low_table! {
    /// `[connections.NAME]`
    LowConnection {
        /// What kind of system it is.
        kind ("type"): Chosen<ConnectionKind>;
        /// s3: address of the service where it is not AWS.
        endpoint: Endpoint;
        /// s3: the region.
        region: Text;
        /// s3: access key, as { env = "NAME" } or { file = "path" }.
        access_key_id: SecretSource;
        /// s3: secret key, as { env = "NAME" } or { file = "path" }.
        secret_access_key: SecretSource;
        /// s3: whether an endpoint may be reached without encryption.
        allow_http: bool = false;
        /// sqlserver: name or IP address of the server.
        host: HostName;
        /// sqlserver: its TCP port.
        port: Port = 1433;
        /// sqlserver: the database.
        database: Text;
        /// sqlserver: name of the SQL login.
        user: Text;
        /// sqlserver: its password, as { env = "NAME" } or { file = "path" }.
        password: SecretSource;
        /// sqlserver: an access token of Microsoft Entra ID instead of user and password, as { env = "NAME" } or { file = "path" }.
        token: SecretSource;
        /// sqlserver: what is encrypted: everything, everything from the first byte, the login, or nothing.
        encrypt: Chosen<Encrypt> = "required";
        /// sqlserver: file with the authority that vouches for the server's certificate, .pem, .crt or .der.
        ca_file: Text;
        /// sqlserver: whether any certificate is taken.
        trust_server_certificate: bool = false;
        /// sqlserver: the name in the server's certificate, where it is not the host.
        certificate_host: HostName;
        /// sqlserver: whether a readable secondary may answer.
        read_intent: bool = false;
        /// sqlserver: size of the packets asked for, in bytes.
        packet_size: PacketSize = 8000;
        /// sqlserver: longest silence between two answers of the server.
        timeout: Span = "5m";
        /// sqlserver: longest time to connect and log in.
        connect_timeout: Span = "15s";
        /// sqlserver: how long a statement waits for somebody else's lock.
        lock_timeout: Span = "5s";
        /// sqlserver: most connections open at the same time.
        max_connections: Count = 4;
        /// sqlserver: most that is read in a second, over all connections.
        rate: Rate;
        /// sqlserver: the part of every day, in UTC, in which loads may read; it may pass midnight.
        hours: Hours;
        /// sqlserver: how long the server is left alone between two chunks.
        pause: Span = "0s";
        /// sqlserver: how long reading one chunk should take; chunks grow and shrink towards it.
        chunk_time: Span = "2s";
        /// sqlserver: whether a database that does not allow snapshots is an error.
        isolation: Chosen<Isolation> = "snapshot";
    }
}

/// Kinds of system that can be reached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ConnectionKind {
    /// An S3-compatible object store.
    S3,
    /// A database of SQL Server.
    SqlServer,
}

impl Choice for ConnectionKind {
    const WORDS: &'static [(&'static str, Self)] = &[("s3", Self::S3), ("sqlserver", Self::SqlServer)];
}

impl Choice for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("human", Self::Human), ("json", Self::Json)];
}

low_table! {
    /// The whole of a table definition.
    LowTable {
        /// What the table is, for people.
        description: String;
        /// Where the rows come from; [[source]] for several.
        source: OneOrMany<LowSource>;
        /// When and how they are loaded.
        load: LowLoad = {};
        /// What holds for the table.
        table: LowTableSection = {};
        /// The columns in order; inferred from the files where none is declared; not for a table of SQL Server.
        columns: Vec<At<LowColumn>> = [];
        /// Columns whose values name rows of other tables; told to tools, not enforced.
        foreign_keys: Vec<At<LowForeignKey>> = [];
    }
    later { "rules": "checking rows by rules", "transform": "transforming by SQL", "export": "exporting tables" }
}

low_table! {
    /// `[source]`
    LowSource {
        /// Path or glob below the configuration's folder, or s3://bucket/prefix/**/*.csv.gz.
        files: Text;
        /// What the files are; told by their ending where nothing is given.
        format: Chosen<FormatWord>;
        /// Name of the connection that reaches the bucket or the database.
        connection: Text;
        /// csv: the character between two fields; a tab for files ending in .tsv.
        delimiter: Byte = ",";
        /// csv: the character around a field that holds delimiters; the empty text where quotes mean nothing.
        quote: Byte = "\"";
        /// csv: whether the first row names the columns.
        header: bool = true;
        /// csv: the text's encoding; a byte order mark wins.
        encoding: EncodingLabel = "utf-8";
        /// csv: unquoted fields that mean NULL.
        null_words: Vec<At<String>> = [""];
        /// csv: first character of lines to skip.
        comment: Byte;
        /// How long a local file must have been left alone before it is read.
        settle: Span = "1s";
        /// SQL Server: schema and name of the table, parts in brackets where need be; without a schema dbo.
        table: ObjectName;
        /// SQL Server: how changes are found.
        method: Chosen<Method> = "auto";
        /// SQL Server: what datetime, datetime2 and smalldatetime become: timestamp_ntz, or timestamp where they hold UTC.
        timestamps: Chosen<Timestamps> = "ntz";
        /// SQL Server: what happens to the seventh digit of a second: cut off, an error, or such columns become text.
        sub_microseconds: Chosen<SubMicroseconds> = "truncate";
        /// SQL Server: what time becomes: text, or microseconds since midnight.
        times: Chosen<TimesOfDay> = "text";
        /// SQL Server: whether sql_variant fails the load or becomes text.
        variants: Chosen<Variants> = "fail";
        /// SQL Server: whether the offset of a datetimeoffset c is kept, in minutes, in a column c__offset_min.
        offsets: bool = false;
        /// SQL Server: largest value that is loaded.
        max_cell: Size = "64MiB";
        /// SQL Server: whether a row with a larger value fails the load or is rejected.
        oversize: Chosen<Oversize> = "fail";
        /// SQL Server: columns that are not loaded.
        leave_out: Vec<At<Text>> = [];
    }
    later { "sql": "a table derived by SQL", "url": "a URL as source" }
}

/// What a file can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FormatWord {
    /// Delimited text.
    Csv,
    /// Parquet.
    Parquet,
    /// One JSON object a line.
    Ndjson,
    /// One JSON array of objects, or one object.
    Json,
}

impl Choice for FormatWord {
    const WORDS: &'static [(&'static str, Self)] =
        &[("csv", Self::Csv), ("parquet", Self::Parquet), ("ndjson", Self::Ndjson), ("json", Self::Json)];
    const LATER: &'static [&'static str] = &["listing"];
}

low_table! {
    /// `[load]`
    LowLoad {
        /// `lakegate serve` loads the table again so long after the end of the last load.
        every: Span;
        /// `lakegate serve` loads the table at these times, in UTC: minute hour day month weekday.
        cron: CronLine;
        /// How new rows meet old ones; a table of SQL Server is always kept in step by its key.
        mode: Chosen<LoadMode> = "append";
        /// Share of a load's rows that may be rejected before the load fails and changes nothing.
        max_rejects: Share = 0.10;
        /// Times a change's own size that may be rewritten for it; a larger change waits for more. Where nothing is given no limit, and 20 for a table of SQL Server.
        max_rewrite: Times;
        /// Longest time a change may wait for max_rewrite.
        max_lag: Span = "15m";
        /// Tables of one group are published together.
        group: Text;
    }
}

impl Choice for LoadMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("append", Self::Append), ("upsert", Self::Upsert), ("replace", Self::Replace), ("mirror", Self::Mirror)];
}

low_table! {
    /// `[table]`
    LowTableSection {
        /// Columns that name a row; the source's primary key for a table of SQL Server where none is given.
        key: Vec<At<Text>> = [];
        /// Whether people may change its rows by SQL and send rows to it.
        writable: bool = false;
    }
}

low_table! {
    /// `[[columns]]`
    LowColumn {
        /// Name of the column in the table.
        name: Text;
        /// Its name in the files, where it is another.
        from: Text;
        /// Its type.
        column_type ("type"): ColumnType;
        /// strftime formats tried in turn for dates and timestamps; ISO 8601 where none is given.
        formats: Vec<At<DateFormat>> = [];
        /// Whether a value may be missing; a row without one is rejected otherwise.
        nullable: bool = true;
    }
}

low_table! {
    /// `[[foreign_keys]]`
    LowForeignKey {
        /// The columns of this table.
        columns: Vec<At<Text>> = [];
        /// The table whose rows they name, as schema.table.
        references: Text;
        /// Its columns; its key where none is given.
        their_columns: Vec<At<Text>> = [];
    }
}
