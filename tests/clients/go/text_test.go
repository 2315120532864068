package clients

import (
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

const (
	day    = "2006-01-02"
	moment = "2006-01-02T15:04:05.000000"
)

// text of a value of an Arrow array, as expected.json has it.
func text(values arrow.Array, at int) string {
	if values.IsNull(at) {
		return "null"
	}
	switch values := values.(type) {
	case *array.Boolean:
		return strconv.FormatBool(values.Value(at))
	case *array.Int16:
		return strconv.FormatInt(int64(values.Value(at)), 10)
	case *array.Int32:
		return strconv.FormatInt(int64(values.Value(at)), 10)
	case *array.Int64:
		return strconv.FormatInt(values.Value(at), 10)
	case *array.Float32:
		return bits(float64(values.Value(at)))
	case *array.Float64:
		return bits(values.Value(at))
	case *array.Decimal128:
		return values.Value(at).ToString(values.DataType().(*arrow.Decimal128Type).Scale)
	case *array.String:
		return quoted(values.Value(at))
	case *array.Binary:
		return "x'" + hex.EncodeToString(values.Value(at)) + "'"
	case *array.Date32:
		return values.Value(at).ToTime().Format(day)
	case *array.Timestamp:
		return instant(values.Value(at).ToTime(arrow.Microsecond), values.DataType().(*arrow.TimestampType).TimeZone)
	case *array.Dictionary:
		return text(values.Dictionary(), values.GetValueIndex(at))
	case *array.Struct:
		return record(values, at)
	case *array.Map:
		return pairs(values, at)
	case *array.List:
		return list(values, at)
	}
	return fmt.Sprintf("nobody said how %s is written", values.DataType())
}

func instant(value time.Time, zone string) string {
	if zone == "" {
		return value.Format(moment)
	}
	return value.UTC().Format(moment) + "Z"
}

func record(values *array.Struct, at int) string {
	var texts []string
	for number, field := range values.DataType().(*arrow.StructType).Fields() {
		texts = append(texts, field.Name+": "+text(values.Field(number), at))
	}
	return "{" + strings.Join(texts, ", ") + "}"
}

func pairs(values *array.Map, at int) string {
	var texts []string
	start, end := values.ValueOffsets(at)
	for item := int(start); item < int(end); item++ {
		texts = append(texts, text(values.Keys(), item)+" => "+text(values.Items(), item))
	}
	return "{" + strings.Join(texts, ", ") + "}"
}

func list(values *array.List, at int) string {
	var texts []string
	start, end := values.ValueOffsets(at)
	for item := int(start); item < int(end); item++ {
		texts = append(texts, text(values.ListValues(), item))
	}
	return "[" + strings.Join(texts, ", ") + "]"
}

func bits(value float64) string {
	if math.IsNaN(value) {
		return "nan"
	}
	return fmt.Sprintf("f%016x", math.Float64bits(value))
}

func quoted(value string) string {
	return `"` + strings.ReplaceAll(strings.ReplaceAll(value, `\`, `\\`), `"`, `\"`) + `"`
}

// goText is the text of a value as database/sql gives it.
func goText(value any) string {
	switch value := value.(type) {
	case nil:
		return "null"
	case float32:
		return bits(float64(value))
	case float64:
		return bits(value)
	case string:
		return quoted(value)
	case []byte:
		return "x'" + hex.EncodeToString(value) + "'"
	case time.Time:
		return instant(value, value.Location().String())
	case interface{ ToString(int32) string }:
		return value.ToString(0)
	case arrow.Array:
		return fmt.Sprintf("array %s", value)
	}
	return fmt.Sprint(value)
}
