package integration

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/dnstrace/dnstrace/trace"
)

// records returns what the tracer has written so far. They are the same ones the next
// time: not to be changed.
func (r *rig) records() []trace.Record {
	r.t.Helper()
	path := r.RecordFile()
	found, old := recordFiles.LoadOrStore(path, &growingFile{path: path})
	if !old {
		r.t.Cleanup(func() { recordFiles.Delete(path) })
	}
	return found.(*growingFile).records(r.t)
}

// recordFiles are those that tests have read, by path: to decode a file of a minute under
// load takes seconds, and many tests look again and again.
var recordFiles sync.Map

// growingFile is a file of records that is written to, and those of its lines so far.
type growingFile struct {
	path string
	mu   sync.Mutex
	read int64
	all  []trace.Record
}

// records decodes the lines that have come since the last time. One that is under way is
// left for the next.
func (f *growingFile) records(t *testing.T) []trace.Record {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	file, err := os.Open(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.NewSectionReader(file, f.read, math.MaxInt64-f.read))
	if err != nil {
		t.Fatal(err)
	}
	lines := wholeLines(text)
	more, err := decodeRecords(lines)
	if err != nil {
		t.Fatalf("%s: after %d records: %v", f.path, len(f.all)+len(more), err)
	}
	f.all = append(f.all, more...)
	f.read += int64(len(lines))
	return slices.Clone(f.all)
}

// readRecords reads what a file holds now: more may be written meanwhile.
func readRecords(t *testing.T, path string) []trace.Record {
	t.Helper()
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	all, err := decodeRecords(wholeLines(text))
	if err != nil {
		t.Fatalf("%s: after %d records: %v", path, len(all), err)
	}
	return all
}

// wholeLines leaves out a line that is under way.
func wholeLines(text []byte) []byte { return text[:bytes.LastIndexByte(text, '\n')+1] }

// decodeRecords returns the records of lines, up to the first that is none.
func decodeRecords(lines []byte) (all []trace.Record, err error) {
	reader := trace.NewReader(bytes.NewReader(lines))
	for {
		rec, _, err := reader.Read()
		switch {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return all, err
		}
		all = append(all, rec)
	}
}
