package trace

import (
	"reflect"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

// decodedSlowly is what the decoder of any JSON makes of a query record.
func decodedSlowly(line []byte) (*Query, error) {
	q := new(Query)
	err := json.Unmarshal(line, q)
	return q, err
}

// What the plugin writes is read without a decoder of any JSON, which would take ten
// times as long.
func TestWrittenQueriesAreReadInOrder(t *testing.T) {
	for _, r := range sampleRecords() {
		q, ok := r.(*Query)
		if !ok || strings.ContainsAny(q.QName, `\"`) {
			continue
		}
		q.Unverified = false // the tracer's word, not the plugin's
		got := decodeQuery(q.AppendJSON(nil))
		if !reflect.DeepEqual(got, q) {
			t.Errorf("got %+v\nwant %+v", got, q)
		}
	}
}

// Whatever is changed in a record, it is read as the decoder of any JSON reads it, or
// left to that.
func TestChangedQueriesAreReadAlike(t *testing.T) {
	written := sampleRecords()[0].(*Query)
	written.Unverified = false // the tracer's word, not the plugin's
	line := string(written.AppendJSON(nil))
	changes := []string{"", " ", ",", "-", "0", "00", "1", "9", ".", ".5", "e1", "null", "true", `"`, `"x"`, `\`, "}", "{", "[", "]", "\x00", "\xff", "é",
		"-0", "1e400", "65536", "18446744073709551616", "0.0000000001", "999999.999999999", "1000001", "9999999999"}
	read := 0
	for i := range line {
		for _, with := range changes {
			for _, cut := range []int{0, 1} {
				changed := []byte(line[:i] + with + line[i+cut:])
				q := decodeQuery(changed)
				if q == nil {
					continue
				}
				read++
				if want, err := decodedSlowly(changed); err != nil || !reflect.DeepEqual(q, want) {
					t.Fatalf("%s\n got %+v\nwant %+v, %v", changed, q, want, err)
				}
			}
		}
	}
	if read < 1000 {
		t.Errorf("%d were read in order: of how many are those?", read)
	}
}

func FuzzDecodeQuery(f *testing.F) {
	for _, r := range sampleRecords() {
		f.Add(r.AppendJSON(nil))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		q := decodeQuery(line)
		if q == nil {
			return
		}
		if want, err := decodedSlowly(line); err != nil || !reflect.DeepEqual(q, want) {
			t.Fatalf("%s\n got %+v\nwant %+v, %v", line, q, want, err)
		}
	})
}
