-- The tables of the sample operational database `ops`: airlines, airports, planes and the flights between them.
-- Read by docker/mssql/fill.sh on SQL Server, and by the stand-in's `--csv`; each <schema>.<table>.csv beside it fills one
-- table. Codes are compared by their letters alone, hence the binary collation of every column that holds one.

ALTER DATABASE [ops] SET ALLOW_SNAPSHOT_ISOLATION ON;
GO
ALTER DATABASE [ops] SET CHANGE_TRACKING = ON (CHANGE_RETENTION = 7 DAYS, AUTO_CLEANUP = ON);
GO

CREATE TABLE dbo.airlines (
    carrier varchar(2) COLLATE Latin1_General_100_BIN2 NOT NULL CONSTRAINT pk_airlines PRIMARY KEY,
    name varchar(60) NOT NULL
);
GO
CREATE TABLE dbo.airports (
    faa varchar(3) COLLATE Latin1_General_100_BIN2 NOT NULL CONSTRAINT pk_airports PRIMARY KEY,
    name varchar(80) NOT NULL,
    lat float NOT NULL,
    lon float NOT NULL,
    alt int NOT NULL,
    tz smallint NULL,
    dst varchar(1) NULL,
    tzone varchar(40) NULL
);
GO
CREATE TABLE dbo.planes (
    tailnum varchar(6) COLLATE Latin1_General_100_BIN2 NOT NULL CONSTRAINT pk_planes PRIMARY KEY,
    year smallint NULL,
    type varchar(40) NULL,
    manufacturer varchar(60) NULL,
    model varchar(40) NULL,
    engines smallint NULL,
    seats smallint NULL,
    speed smallint NULL,
    engine varchar(20) NULL
);
GO
-- Times of day are numbers as the airlines write them: 517 is 5:17. time_hour is the planned hour, in UTC.
CREATE TABLE dbo.flights (
    flight_id int NOT NULL CONSTRAINT pk_flights PRIMARY KEY,
    year smallint NOT NULL,
    month smallint NOT NULL,
    day smallint NOT NULL,
    dep_time smallint NULL,
    sched_dep_time smallint NOT NULL,
    dep_delay smallint NULL,
    arr_time smallint NULL,
    sched_arr_time smallint NOT NULL,
    arr_delay smallint NULL,
    carrier varchar(2) COLLATE Latin1_General_100_BIN2 NOT NULL,
    flight int NOT NULL,
    tailnum varchar(6) COLLATE Latin1_General_100_BIN2 NULL,
    origin varchar(3) COLLATE Latin1_General_100_BIN2 NOT NULL,
    dest varchar(3) COLLATE Latin1_General_100_BIN2 NOT NULL,
    air_time smallint NULL,
    distance smallint NOT NULL,
    hour smallint NOT NULL,
    minute smallint NOT NULL,
    time_hour datetime2(0) NOT NULL
);
GO

ALTER TABLE dbo.airlines ENABLE CHANGE_TRACKING WITH (TRACK_COLUMNS_UPDATED = OFF);
GO
ALTER TABLE dbo.airports ENABLE CHANGE_TRACKING WITH (TRACK_COLUMNS_UPDATED = OFF);
GO
ALTER TABLE dbo.planes ENABLE CHANGE_TRACKING WITH (TRACK_COLUMNS_UPDATED = OFF);
GO
ALTER TABLE dbo.flights ENABLE CHANGE_TRACKING WITH (TRACK_COLUMNS_UPDATED = OFF);
GO
