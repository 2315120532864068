-- The login that lakegate reads by: it may read the tables and ask for their changes, and nothing else. Run by sqlcmd, which
-- puts the password in. `lakegate doctor` prints the same rights for a database of your own.
SET NOCOUNT ON;
SET XACT_ABORT ON;
IF NOT EXISTS (SELECT 1 FROM sys.sql_logins WHERE name = N'lakegate')
    CREATE LOGIN [lakegate] WITH PASSWORD = N'$(LAKEGATE_PASSWORD)', DEFAULT_DATABASE = [ops];
ELSE IF EXISTS (
    SELECT 1 FROM sys.sql_logins WHERE name = N'lakegate' AND PWDCOMPARE(N'$(LAKEGATE_PASSWORD)', password_hash) = 0
)
    ALTER LOGIN [lakegate] WITH PASSWORD = N'$(LAKEGATE_PASSWORD)';
GO
-- All or nothing: whoever can read one table can read each of them.
SET XACT_ABORT ON;
BEGIN TRANSACTION;
IF DATABASE_PRINCIPAL_ID(N'lakegate') IS NULL
    CREATE USER [lakegate] FOR LOGIN [lakegate];
DECLARE @grants nvarchar(max) = N'';
SELECT @grants += N'GRANT SELECT ON OBJECT::' + QUOTENAME(s.name) + N'.' + QUOTENAME(t.name) + N' TO [lakegate];'
FROM sys.tables AS t JOIN sys.schemas AS s ON s.schema_id = t.schema_id;
SELECT @grants += N'GRANT VIEW CHANGE TRACKING ON OBJECT::' + QUOTENAME(s.name) + N'.' + QUOTENAME(t.name)
    + N' TO [lakegate];'
FROM sys.tables AS t JOIN sys.schemas AS s ON s.schema_id = t.schema_id
JOIN sys.change_tracking_tables AS c ON c.object_id = t.object_id;
EXEC sys.sp_executesql @grants;
-- It lets a restore be noticed and sizes be estimated.
GRANT VIEW DATABASE STATE TO [lakegate];
COMMIT TRANSACTION;
GO
