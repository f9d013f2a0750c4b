package trace

import (
	"bytes"
	"maps"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

const schemaFile = "records.schema.json"

// schemaTypes are the Go types of the schema's definitions.
var schemaTypes = map[string]reflect.Type{
	"query": reflect.TypeFor[Query](), "refresh": reflect.TypeFor[Refresh](), "exchange": reflect.TypeFor[Exchange](),
	"trace": reflect.TypeFor[Trace](), "hop": reflect.TypeFor[Hop](), "attempt": reflect.TypeFor[Attempt](),
	"nat": reflect.TypeFor[NAT](), "service_endpoint": reflect.TypeFor[ServiceEndpoint](), "sighting": reflect.TypeFor[pathMember](), "drop": reflect.TypeFor[Drop](),
	"milestones": reflect.TypeFor[Milestones](), "progress": reflect.TypeFor[Progress](), "rejection": reflect.TypeFor[Rejection](), "reset": reflect.TypeFor[Reset](),
	"tunnel": reflect.TypeFor[Tunnel](), "answer": reflect.TypeFor[Answer](), "extended_error": reflect.TypeFor[ExtendedError](),
	"icmp": reflect.TypeFor[ICMP](), "fragments": reflect.TypeFor[Fragments](), "endpoint": reflect.TypeFor[Endpoint](), "upstream": reflect.TypeFor[Upstream](), "finding": reflect.TypeFor[Finding](),
	"trace_id": reflect.TypeFor[TraceID](), "flow": reflect.TypeFor[Flow](), "span_id": reflect.TypeFor[SpanID](),
}

// schemaNode is as much of JSON Schema as the file uses to give types.
type schemaNode struct {
	Type                 any                   `json:"type"`
	Ref                  string                `json:"$ref"`
	AnyOf                []schemaNode          `json:"anyOf"`
	OneOf                []schemaNode          `json:"oneOf"`
	Items                *schemaNode           `json:"items"`
	Properties           map[string]schemaNode `json:"properties"`
	AdditionalProperties *bool                 `json:"additionalProperties"`
	Defs                 map[string]schemaNode `json:"$defs"`
}

// types says what n accepts: names of JSON types and of definitions, in order.
func (n *schemaNode) types() string {
	var names []string
	switch t := n.Type.(type) {
	case string:
		names = append(names, t)
	case []any:
		for _, name := range t {
			names = append(names, name.(string))
		}
	}
	if name, ok := strings.CutPrefix(n.Ref, "#/$defs/"); ok {
		names = append(names, name)
	}
	for _, option := range n.AnyOf {
		names = append(names, option.types())
	}
	if n.Items != nil {
		names = append(names, "of", n.Items.types())
	}
	return strings.Join(names, " ")
}

// wantTypes is what types must say of a field: the encoder writes null for an
// empty string, an address that is not set, a nil pointer, and the PID 0.
func wantTypes(f reflect.StructField) string {
	t := f.Type
	null := ""
	if f.Type == reflect.TypeFor[[]*Exchange]() {
		return "array of exchange"
	}
	if t.Kind() == reflect.Pointer {
		t, null = t.Elem(), " null"
	}
	for name, definition := range schemaTypes {
		if t == definition {
			return name + null
		}
	}
	switch t {
	case reflect.TypeFor[Path]():
		return "array of sighting"
	case reflect.TypeFor[Milestone]():
		return "integer string null"
	case reflect.TypeFor[Seconds]():
		return "number" + null
	case reflect.TypeFor[time.Time]():
		return "string"
	case reflect.TypeFor[netip.Addr](), reflect.TypeFor[netip.AddrPort]():
		return "string null"
	}
	switch t.Kind() {
	case reflect.Slice:
		element := reflect.StructField{Type: t.Elem()}
		return "array of " + strings.TrimSuffix(wantTypes(element), " null")
	case reflect.String:
		if f.Name == "Record" {
			return "string"
		}
		return "string null"
	case reflect.Bool:
		return "boolean"
	case reflect.Float64:
		return "number" + null
	}
	if f.Name == "PID" {
		null = " null"
	}
	return "integer" + null
}

func readSchema(t *testing.T) (text []byte, root schemaNode) {
	t.Helper()
	text, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	return text, root
}

// ofMessage are the fields of an exchange that an attempt to connect has not.
var ofMessage = []string{"id", "opcode", "request_size", "dnssec_ok", "bufsize"}

// The schema has the fields of the Go types, and nothing else; a record may have others.
func TestSchemaHasTheGoTypes(t *testing.T) {
	_, root := readSchema(t)
	if got, want := slices.Sorted(maps.Keys(root.Defs)), slices.Sorted(maps.Keys(schemaTypes)); !slices.Equal(got, want) {
		t.Errorf("definitions %v, want %v", got, want)
	}
	for name, goType := range schemaTypes {
		definition := root.Defs[name]
		if goType.Kind() != reflect.Struct {
			if got := definition.types(); got != "string" {
				t.Errorf("%s: %s", name, got)
			}
			continue
		}
		if definition.AdditionalProperties != nil {
			t.Errorf("%s refuses unknown fields, which readers pass over", name)
		}
		fields := map[string]string{}
		for _, f := range reflect.VisibleFields(goType) {
			if tag, ok := f.Tag.Lookup("json"); ok && tag != "-" {
				tag, _, _ = strings.Cut(tag, ",")
				fields[tag] = wantTypes(f)
				if name == "exchange" && slices.Contains(ofMessage, tag) {
					fields[tag] += " null"
				}
			}
		}
		for field, want := range fields {
			property, ok := definition.Properties[field]
			if got := property.types(); !ok || got != want {
				t.Errorf("%s.%s is %q in the schema, want %q", name, field, got, want)
			}
		}
		for field := range definition.Properties {
			if _, ok := fields[field]; !ok {
				t.Errorf("%s.%s is not in the Go type", name, field)
			}
		}
	}
}

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, root := readSchema(t)
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(root.OneOf) != 4 {
		t.Errorf("%d kinds of record", len(root.OneOf))
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(schemaFile, document); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func TestSchemaTakesTheSamples(t *testing.T) {
	schema := compileSchema(t)
	content, err := os.ReadFile("testdata/records.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range bytes.Lines(content) {
		n++
		if err := validate(t, schema, line); err != nil {
			t.Errorf("line %d: %v", n, err)
		}
	}
	if n < len(sampleRecords()) {
		t.Errorf("%d samples", n)
	}
}

// What Decode refuses, the schema refuses.
func TestSchemaRefuses(t *testing.T) {
	schema := compileSchema(t)
	good := string(sampleRecords()[0].AppendJSON(nil))
	for _, tc := range []struct{ name, old, repl string }{
		{"version", `"v":1`, `"v":2`},
		{"kind", `"record":"query"`, `"record":"span"`},
		{"type", `"client_port":50202`, `"client_port":"x"`},
		{"range", `"client_port":50202`, `"client_port":70000`},
		{"null", `"id":49569`, `"id":null`},
		{"nested", `"address":"192.168.49.1:53"`, `"address":5`},
		{"hex", `"flow":"4`, `"flow":"x`},
		{"length", `"flow":"41`, `"flow":"`},
		{"value", `"outcome":"answered"`, `"outcome":"fine"`},
		{"time", `"time":"2026-11-21T`, `"time":"2026-11-21 `},
		{"time missing", `"time":"2026-11-21T03:00:00.123456789Z",`, ""},
	} {
		line := strings.Replace(good, tc.old, tc.repl, 1)
		if line == good {
			t.Fatalf("the sample has no %s", tc.old)
		}
		if validate(t, schema, []byte(line)) == nil {
			t.Errorf("%s is accepted", tc.name)
		}
	}
	// Absent is unknown.
	if err := validate(t, schema, []byte(strings.Replace(good, `"zone":".",`, "", 1))); err != nil {
		t.Error(err)
	}
}

func validate(t *testing.T, schema *jsonschema.Schema, line []byte) error {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
	if err != nil {
		t.Fatal(err)
	}
	return schema.Validate(value)
}

// An attempt to open a TCP connection has no message: what it would say is null, and
// stays so.
func TestConnectionAttempt(t *testing.T) {
	attempt := &Exchange{Header: Header{V: Version, Time: time.Unix(1, 0).UTC(), TraceID: TraceID{1}, Flow: Flow{1}}, DNS: DNS{Protocol: "tcp", ID: 1, BufSize: 65535}}
	line := attempt.AppendJSON(nil)
	for _, field := range ofMessage {
		if !bytes.Contains(line, []byte(`"`+field+`":null`)) {
			t.Errorf("%s is not null: %s", field, line)
		}
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
	if err != nil {
		t.Fatal(err)
	}
	if err := compileSchema(t).Validate(document); err != nil {
		t.Error(err)
	}
	again, err := Decode(line)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.AppendJSON(nil); !bytes.Equal(got, line) {
		t.Errorf("read and written again: %s", got)
	}
}
