// Package clients tests Go's Flight SQL clients against a lakegate server: arrow-go's own client, the ADBC driver, and
// arrow-go's driver for database/sql. `make test-clients` runs it; the server is found in LAKEGATE_HOST and LAKEGATE_PORT.
package clients

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Rows of types.matrix.
const rows = 10

// Cells of shapes.giant have up to so many bytes.
const giant = 20 << 20

func address(t *testing.T) string {
	t.Helper()
	host, port := os.Getenv("LAKEGATE_HOST"), os.Getenv("LAKEGATE_PORT")
	if host == "" || port == "" {
		t.Fatal("LAKEGATE_HOST and LAKEGATE_PORT are not set; run this through `make test-clients`")
	}
	return net.JoinHostPort(host, port)
}

// A context that ends long before anybody would call it a hang.
func patience(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func connect(t *testing.T, options ...grpc.DialOption) *flightsql.Client {
	t.Helper()
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	client, err := flightsql.NewClient(address(t), nil, nil, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// read runs a statement and gives the reader of its one endpoint.
func read(t *testing.T, client *flightsql.Client, sql string) (*flight.Reader, error) {
	t.Helper()
	info, err := client.Execute(patience(t), sql)
	if err != nil {
		return nil, err
	}
	if len(info.Endpoint) != 1 || len(info.Endpoint[0].Location) != 0 {
		t.Fatalf("not one endpoint without a location: %v", info.Endpoint)
	}
	return client.DoGet(patience(t), info.Endpoint[0].Ticket)
}

type column struct {
	Name   string   `json:"name"`
	Type   string   `json:"type"`
	Values []string `json:"values"`
}

type difference struct {
	Values []string `json:"values"`
	Error  string   `json:"error"`
}

type expectations struct {
	Columns []column `json:"columns"`
	Clients map[string]struct {
		Types   map[string]string     `json:"types"`
		Differs map[string]difference `json:"differs"`
	} `json:"clients"`
}

func expected(t *testing.T) expectations {
	t.Helper()
	content, err := os.ReadFile(os.Getenv("LAKEGATE_EXPECTED"))
	if err != nil {
		t.Fatal(err)
	}
	var read expectations
	if err := json.Unmarshal(content, &read); err != nil {
		t.Fatal(err)
	}
	return read
}

// values of a column as a client is expected to give them, or what its error says.
func (e expectations) values(client string, of column) ([]string, string) {
	values := of.Values
	if differs, ok := e.Clients[client].Differs[of.Name]; ok {
		if differs.Error != "" {
			return nil, differs.Error
		}
		values = differs.Values
	}
	padded := append([]string{}, values...)
	for len(padded) < rows {
		padded = append(padded, "null")
	}
	return padded, ""
}
