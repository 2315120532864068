// Package grafana makes the calls of influxdata's FlightSQL plugin for Grafana, with the Arrow library that the plugin is
// built on (arrow-go 12). It is a replay of what the plugin's source does; Grafana itself is not run.
package grafana

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"github.com/apache/arrow/go/v12/arrow"
	"github.com/apache/arrow/go/v12/arrow/array"
	"github.com/apache/arrow/go/v12/arrow/flight"
	"github.com/apache/arrow/go/v12/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

type plugin struct {
	*testing.T
	ctx    context.Context
	client *flightsql.Client
}

// start connects as the plugin does: a name and a password become a token once, at the beginning.
func start(t *testing.T) plugin {
	t.Helper()
	host, port := os.Getenv("LAKEGATE_HOST"), os.Getenv("LAKEGATE_PORT")
	if host == "" || port == "" {
		t.Fatal("LAKEGATE_HOST and LAKEGATE_PORT are not set; run this through `make test-clients`")
	}
	credentials := grpc.WithTransportCredentials(insecure.NewCredentials())
	client, err := flightsql.NewClient(net.JoinHostPort(host, port), nil, nil, credentials)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(func() { cancel(); _ = client.Close() })
	ctx, err = client.Client.AuthenticateBasicToken(ctx, "ada", "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	return plugin{t, ctx, client}
}

// rows of an answer, which must have exactly one endpoint.
func (p plugin) rows(info *flight.FlightInfo, err error) []arrow.Record {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
	if len(info.Endpoint) != 1 {
		p.Fatalf("the plugin refuses %d endpoints", len(info.Endpoint))
	}
	reader, err := p.client.DoGet(p.ctx, info.Endpoint[0].Ticket)
	if err != nil {
		p.Fatal(err)
	}
	defer reader.Release()
	var found []arrow.Record
	for reader.Next() {
		record := reader.Record()
		record.Retain()
		found = append(found, record)
	}
	if reader.Err() != nil {
		p.Fatal(reader.Err())
	}
	return found
}

func count(records []arrow.Record) int64 {
	total := int64(0)
	for _, record := range records {
		total += record.NumRows()
	}
	return total
}

func TestSaveAndTest(t *testing.T) {
	p := start(t)
	if found := count(p.rows(p.client.Execute(p.ctx, "select 1"))); found != 1 {
		t.Fatalf("%d rows", found)
	}
}

func TestTheQueryBuilder(t *testing.T) {
	p := start(t)
	if found := count(p.rows(p.client.GetSqlInfo(p.ctx, nil))); found < 80 {
		t.Errorf("%d facts about the server", found)
	}
	tables := &flightsql.GetTablesOpts{TableTypes: []string{"BASE TABLE", "table"}}
	names := map[string]bool{}
	for _, record := range p.rows(p.client.GetTables(p.ctx, tables)) {
		for row := range int(record.NumRows()) {
			names[record.Column(2).(*array.String).Value(row)] = true
		}
	}
	if !names["people"] || !names["matrix"] || names["loads"] {
		t.Errorf("the tables are %v", names)
	}
	people := "people"
	columns := &flightsql.GetTablesOpts{TableNameFilterPattern: &people, IncludeSchema: true}
	for _, record := range p.rows(p.client.GetTables(p.ctx, columns)) {
		schema, err := flight.DeserializeSchema(record.Column(4).(*array.Binary).Value(0), nil)
		if err != nil || len(schema.Fields()) != 3 {
			t.Errorf("%v %v", schema, err)
		}
	}
}

// The plugin takes every time for nanoseconds; the page says how to give it some.
func TestATimeSeries(t *testing.T) {
	p := start(t)
	const sql = `select arrow_cast(instant, 'Timestamp(Nanosecond, Some("UTC"))') as time, cast(id as double) as value
	  from types.matrix where id = 1`
	for _, record := range p.rows(p.client.Execute(p.ctx, sql)) {
		at := record.Column(0).(*array.Timestamp).Value(0).ToTime(arrow.Nanosecond)
		if at.Format(time.RFC3339Nano) != "2024-02-29T12:34:56.789012Z" {
			t.Errorf("the time is %s", at)
		}
	}
}

// Each message is below the 4 MiB that the plugin takes, however large the result; and its Arrow unpacks what it is sent.
func TestALargeResult(t *testing.T) {
	p := start(t)
	records := p.rows(p.client.Execute(p.ctx, "select n, word, half from shapes.million order by n"))
	at := int64(0)
	for _, record := range records {
		for _, value := range record.Column(0).(*array.Int64).Int64Values() {
			if value != at {
				t.Fatalf("row %d is %d", at, value)
			}
			at++
		}
	}
	if at != 1_000_000 {
		t.Fatalf("%d rows", at)
	}
}
