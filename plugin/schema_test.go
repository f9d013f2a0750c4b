package dnstrace

import (
	"bytes"
	"os"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// recordSchema is the JSON Schema that users of the records go by.
var recordSchema = sync.OnceValues(func() (*jsonschema.Schema, error) {
	const name = "../trace/records.schema.json"
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(name, document); err != nil {
		return nil, err
	}
	return c.Compile(name)
})

// checkSchema makes sure that a record is one by the JSON Schema: whatever a test
// makes the plugin write, each value of it is known there.
func checkSchema(t *testing.T, line []byte) {
	t.Helper()
	schema, err := recordSchema()
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(value); err != nil {
		t.Errorf("%v\n%s", err, line)
	}
}
