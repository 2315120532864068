package clients

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-adbc/go/adbc"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Would take days, and has no row to send.
const endless = "select count(*) from shapes.million a, shapes.million b where a.half + b.half < 0"

func count(t *testing.T, reader array.RecordReader, err error) int64 {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Release()
	total := int64(0)
	for reader.Next() {
		total += reader.RecordBatch().NumRows()
	}
	if reader.Err() != nil && !errors.Is(reader.Err(), io.EOF) {
		t.Fatal(reader.Err())
	}
	return total
}

func TestShapes(t *testing.T) {
	client, connection := connect(t), open(t, nil)
	// Planning so wide a statement takes ten seconds without optimisation: once is enough.
	reader, err := read(t, client, "select * from shapes.wide")
	if found := count(t, reader, err); found != 2 {
		t.Errorf("4,000 columns: %d rows", found)
	}
	for sql, expected := range map[string]int64{
		"select * from shapes.nothing":               0,
		"select * from shapes.one":                   1,
		"select n, word, half from shapes.million":   1_000_000,
		"select cell from shapes.giant where id = 2": 1,
	} {
		reader, err := read(t, client, sql)
		if found := count(t, reader, err); found != expected {
			t.Errorf("arrow-go: %s: %d rows", sql, found)
		}
		answer, err := query(t, connection, sql, nil)
		if found := count(t, answer, err); found != expected {
			t.Errorf("ADBC: %s: %d rows", sql, found)
		}
	}
}

func TestAGiantCellIsAnErrorUntilTheClientsLimitIsRaised(t *testing.T) {
	const giants = "select cell from shapes.giant order by id"
	plain := metadata.AppendToOutgoingContext(patience(t), "lakegate-codec", "none")
	fetch := func(client *flightsql.Client) (int, error) {
		info, err := client.Execute(plain, giants)
		if err != nil {
			return 0, err
		}
		reader, err := client.DoGet(plain, info.Endpoint[0].Ticket)
		if err != nil {
			return 0, err
		}
		defer reader.Release()
		length := 0
		for reader.Next() {
			for at := range int(reader.RecordBatch().NumRows()) {
				length += len(reader.RecordBatch().Column(0).(*array.String).Value(at))
			}
		}
		return length, reader.Err()
	}
	if _, err := fetch(connect(t)); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "larger than max") {
		t.Fatalf("within the limit of 4 MiB: %v", err)
	}
	length, err := fetch(connect(t, grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20))))
	if err != nil || length != giant+len("small") {
		t.Fatalf("with a limit of 64 MiB: %d %v", length, err)
	}
}

func TestBasicCredentialsAreAnswered(t *testing.T) {
	client := connect(t)
	ctx, err := client.Client.AuthenticateBasicToken(patience(t), "anybody", "pass:word")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Execute(ctx, "select 1"); err != nil {
		t.Fatal(err)
	}
	user := map[string]string{adbc.OptionKeyUsername: "anybody", adbc.OptionKeyPassword: "pass:word"}
	reader, err := query(t, open(t, user), "select 1", nil)
	if count(t, reader, err) != 1 {
		t.Fatal("no row")
	}
}

func values(t *testing.T, build func(*array.RecordBuilder), kinds ...arrow.DataType) arrow.RecordBatch {
	t.Helper()
	fields := make([]arrow.Field, len(kinds))
	for at, kind := range kinds {
		fields[at] = arrow.Field{Name: string(rune('a' + at)), Type: kind, Nullable: true}
	}
	builder := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema(fields, nil))
	defer builder.Release()
	build(builder)
	batch := builder.NewRecordBatch()
	t.Cleanup(batch.Release)
	return batch
}

func TestParameters(t *testing.T) {
	const question = "select text from types.matrix where whole = ? or text = ? order by id"
	bound := values(t, func(builder *array.RecordBuilder) {
		builder.Field(0).(*array.Int64Builder).Append(7)
		builder.Field(1).(*array.StringBuilder).Append("")
	}, arrow.PrimitiveTypes.Int64, arrow.BinaryTypes.String)

	client := connect(t)
	prepared, err := client.Prepare(patience(t), question)
	if err != nil {
		t.Fatal(err)
	}
	defer prepared.Close(patience(t))
	if prepared.ParameterSchema().NumFields() != 2 || prepared.DatasetSchema().NumFields() != 1 {
		t.Fatalf("%v %v", prepared.ParameterSchema(), prepared.DatasetSchema())
	}
	prepared.SetParameters(bound)
	for range 2 {
		info, err := prepared.Execute(patience(t))
		if err != nil {
			t.Fatal(err)
		}
		reader, err := client.DoGet(patience(t), info.Endpoint[0].Ticket)
		if found := count(t, reader, err); found != 2 {
			t.Fatalf("arrow-go: %d rows", found)
		}
	}
	reader, err := query(t, open(t, nil), question, bound)
	if found := count(t, reader, err); found != 2 {
		t.Fatalf("ADBC: %d rows", found)
	}

	database, err := sql.Open("flightsql", "flightsql://"+address(t)+"?timeout=60s")
	if err != nil {
		t.Fatal(err)
	}
	defer database.Close()
	var word string
	for _, condition := range []string{"large = ?", "cast(whole as bigint) = ?"} {
		row := database.QueryRowContext(patience(t), "select text from types.matrix where "+condition, int64(7))
		if err := row.Scan(&word); err != nil || word != "plain" {
			t.Fatalf("database/sql: %s: %q %v", condition, word, err)
		}
	}
}

func TestBrowsing(t *testing.T) {
	client := connect(t)
	ask := func(info *flight.FlightInfo, err error) int64 {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		reader, err := client.DoGet(patience(t), info.Endpoint[0].Ticket)
		return count(t, reader, err)
	}
	types := "types"
	tables := flightsql.GetTablesOpts{DbSchemaFilterPattern: &types, IncludeSchema: true}
	if found := ask(client.GetTables(patience(t), &tables)); found != 2 {
		t.Errorf("%d tables", found)
	}
	if found := ask(client.GetCatalogs(patience(t))); found != 1 {
		t.Errorf("%d catalogs", found)
	}
	if found := ask(client.GetDBSchemas(patience(t), &flightsql.GetDBSchemasOpts{})); found < 3 {
		t.Errorf("%d schemas", found)
	}
	if found := ask(client.GetSqlInfo(patience(t), nil)); found < 80 {
		t.Errorf("%d facts about the server", found)
	}
	if found := ask(client.GetXdbcTypeInfo(patience(t), nil)); found != 15 {
		t.Errorf("%d types", found)
	}
	if found := ask(client.GetPrimaryKeys(patience(t), flightsql.TableRef{DBSchema: new(string), Table: "keyed"})); found != 0 {
		t.Errorf("%d keys in the schema without a name", found)
	}
	if found := ask(client.GetPrimaryKeys(patience(t), flightsql.TableRef{Table: "keyed"})); found != 1 {
		t.Errorf("%d keys", found)
	}

	connection := open(t, nil)
	objects, err := connection.GetObjects(patience(t), adbc.ObjectDepthAll, nil, nil, nil, nil, nil)
	if found := count(t, objects, err); found != 1 {
		t.Errorf("ADBC: %d catalogs", found)
	}
	schema, err := connection.GetTableSchema(patience(t), nil, &types, "matrix")
	if err != nil || schema.NumFields() != 24 {
		t.Errorf("ADBC: %v %v", schema, err)
	}
	facts, err := connection.GetInfo(patience(t), nil)
	if found := count(t, facts, err); found == 0 {
		t.Error("ADBC: no facts about the server")
	}
}

func TestMistakesAreThePersonsOwn(t *testing.T) {
	client := connect(t)
	for sql, code := range map[string]codes.Code{
		"selec 1": codes.InvalidArgument,
		"select no_such_column from types.matrix": codes.InvalidArgument,
		"select * from types.no_such_table":       codes.NotFound,
	} {
		if _, err := client.Execute(patience(t), sql); status.Code(err) != code {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestCancellingEndsAStatement(t *testing.T) {
	client := connect(t)
	info, err := client.Execute(patience(t), endless)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		reader, err := client.DoGet(patience(t), info.Endpoint[0].Ticket)
		if err == nil {
			defer reader.Release()
			for reader.Next() {
			}
			err = reader.Err()
		}
		ended <- err
	}()
	// Until the statement runs there is nothing to cancel; the server says so.
	for {
		result, err := client.CancelFlightInfo(patience(t), &flight.CancelFlightInfoRequest{Info: info})
		if err != nil {
			t.Fatal(err)
		}
		if result.Status == flight.CancelStatusCancelling || result.Status == flight.CancelStatusCancelled {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := <-ended; status.Code(err) != codes.Canceled {
		t.Fatalf("the statement ended with %v", err)
	}
}

func TestAnEndedContextEndsAStatement(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	statement, err := open(t, nil).NewStatement()
	if err != nil {
		t.Fatal(err)
	}
	defer statement.Close()
	if err := statement.SetSqlQuery(endless); err != nil {
		t.Fatal(err)
	}
	reader, _, err := statement.ExecuteQuery(ctx)
	if err == nil {
		defer reader.Release()
		for reader.Next() {
		}
		err = reader.Err()
	}
	if err == nil {
		t.Fatal("the statement came to its end")
	}
	if found := count(t, must(query(t, open(t, nil), "select 1", nil)), nil); found != 1 {
		t.Fatal("nobody else is answered")
	}
}

func must(reader array.RecordReader, err error) array.RecordReader {
	if err != nil {
		panic(err)
	}
	return reader
}

func TestSessionsAreClosed(t *testing.T) {
	client := connect(t)
	options, err := client.GetSessionOptions(patience(t), &flight.GetSessionOptionsRequest{})
	if err != nil || options.SessionOptions["catalog"].GetStringValue() != "lakegate" {
		t.Fatalf("%v %v", options, err)
	}
	if _, err := client.CloseSession(patience(t), &flight.CloseSessionRequest{}); err != nil {
		t.Fatal(err)
	}
}

func TestAClientSaysHowRowsCome(t *testing.T) {
	const words = "select word, half from shapes.million where n < 4"
	for name, header := range map[string][2]string{
		"dictionary, float64": {"lakegate-dictionaries", "on"},
		"string, float64":     {"lakegate-codec", "lz4"},
		"string, float32":     {"lakegate-precision", "rounded"},
	} {
		kinds := func(reader array.RecordReader) string {
			fields := reader.Schema().Fields()
			return strings.ToLower(fields[0].Type.ID().String() + ", " + fields[1].Type.ID().String())
		}
		ctx := metadata.AppendToOutgoingContext(patience(t), header[0], header[1])
		client := connect(t)
		info, err := client.Execute(ctx, words)
		if err != nil {
			t.Fatal(err)
		}
		reader, err := client.DoGet(ctx, info.Endpoint[0].Ticket)
		if err != nil {
			t.Fatal(err)
		}
		if found := kinds(reader); found != name {
			t.Errorf("arrow-go: %s instead of %s", found, name)
		}
		if found := count(t, reader, nil); found != 4 {
			t.Errorf("arrow-go: %d rows", found)
		}
		options := map[string]string{"adbc.flight.sql.rpc.call_header." + header[0]: header[1]}
		answer, err := query(t, open(t, options), words, nil)
		if err != nil {
			t.Fatal(err)
		}
		if found := kinds(answer); found != name {
			t.Errorf("ADBC: %s instead of %s", found, name)
		}
		if found := count(t, answer, nil); found != 4 {
			t.Errorf("ADBC: %d rows", found)
		}
	}
}
