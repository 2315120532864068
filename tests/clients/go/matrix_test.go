package clients

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-adbc/go/adbc"
	driver "github.com/apache/arrow-adbc/go/adbc/driver/flightsql"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	_ "github.com/apache/arrow-go/v18/arrow/flight/flightsql/driver"
	"github.com/apache/arrow-go/v18/arrow/memory"
)

// A client's answer: the type it has for a column, and the texts of the values.
type reading func(t *testing.T, sql string) (string, []string, error)

func drain(reader array.RecordReader) (string, []string, error) {
	var found []string
	for reader.Next() {
		batch := reader.RecordBatch()
		for at := range int(batch.NumRows()) {
			found = append(found, text(batch.Column(0), at))
		}
	}
	return reader.Schema().Field(0).Type.String(), found, reader.Err()
}

func byArrow(t *testing.T, sql string) (string, []string, error) {
	reader, err := read(t, connect(t), sql)
	if err != nil {
		return "", nil, err
	}
	defer reader.Release()
	return drain(reader)
}

func open(t *testing.T, options map[string]string) adbc.Connection {
	t.Helper()
	settings := map[string]string{adbc.OptionKeyURI: "grpc+tcp://" + address(t)}
	for name, value := range options {
		settings[name] = value
	}
	database, err := driver.NewDriver(memory.DefaultAllocator).NewDatabase(settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = database.Close() })
	connection, err := database.Open(patience(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

func query(t *testing.T, connection adbc.Connection, sql string, values arrow.RecordBatch) (array.RecordReader, error) {
	t.Helper()
	statement, err := connection.NewStatement()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = statement.Close() })
	if err := statement.SetSqlQuery(sql); err != nil {
		return nil, err
	}
	if values != nil {
		if err := statement.Prepare(patience(t)); err != nil {
			return nil, err
		}
		if err := statement.Bind(patience(t), values); err != nil {
			return nil, err
		}
	}
	reader, _, err := statement.ExecuteQuery(patience(t))
	return reader, err
}

func byADBC(t *testing.T, sql string) (string, []string, error) {
	reader, err := query(t, open(t, nil), sql, nil)
	if err != nil {
		return "", nil, err
	}
	defer reader.Release()
	return drain(reader)
}

func byDatabaseSQL(t *testing.T, statement string) (string, []string, error) {
	database, err := sql.Open("flightsql", "flightsql://"+address(t)+"?timeout=60s")
	if err != nil {
		return "", nil, err
	}
	defer database.Close()
	answer, err := database.QueryContext(patience(t), statement)
	if err != nil {
		return "", nil, err
	}
	defer answer.Close()
	kind := "never a value"
	var found []string
	for answer.Next() {
		var value any
		if err := answer.Scan(&value); err != nil {
			return "", nil, err
		}
		if value != nil {
			kind = fmt.Sprintf("%T", value)
		}
		found = append(found, goText(value))
	}
	return kind, found, answer.Err()
}

func TestEveryTypeArrivesAsExpected(t *testing.T) {
	file := expected(t)
	for client, reading := range map[string]reading{"go-arrow": byArrow, "go-adbc": byADBC, "go-database-sql": byDatabaseSQL} {
		for _, column := range file.Columns {
			t.Run(client+"/"+column.Name, func(t *testing.T) {
				kind, found, err := reading(t, "select "+column.Name+" from types.matrix order by id")
				values, failure := file.values(client, column)
				if failure != "" {
					if err == nil || !strings.Contains(err.Error(), failure) {
						t.Fatalf("expected an error that says %q, found %v %v %v", failure, kind, found, err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(found, values) {
					t.Fatalf("found\n%q, expected\n%q", found, values)
				}
				if kind != file.Clients[client].Types[column.Name] {
					t.Fatalf("the type is %q", kind)
				}
			})
		}
	}
}
