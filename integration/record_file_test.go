package integration

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"
)

// maxReadingHeap is what reading a record file may take at most, whatever its size. Some 20 MB are in use:
// records that are sorted, and those that wait for others of their lookup; Go's
// heap grows to twice that before it is collected.
const maxReadingHeap = 48 << 20

// A record file of 100 MB takes no more memory than one of 10 MB, and a broken line
// in its middle is told with its number and passed over.
func TestReadingALargeFileTakesConstantMemory(t *testing.T) {
	healthy := healthyRecords(t)
	small, large := recordFile(t, healthy, 10<<20), recordFile(t, healthy, 100<<20)
	for _, args := range [][]string{{"explain", "--all"}, {"explain", "--all", "-o", "json"}, {"explain", "*.c1.*"}, {"top", "--once"}, {"watch"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			few, many := readingHeap(t, small, args), readingHeap(t, large, args)
			t.Logf("10 MB: %d MB of heap, 100 MB: %d MB", few>>20, many>>20)
			if few > maxReadingHeap || many > maxReadingHeap {
				t.Errorf("more than %d MB", maxReadingHeap>>20)
			}
		})
	}
}

// healthyRecords are those of ten minutes of healthy traffic.
func healthyRecords(t *testing.T) []trace.Record {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "tracer", "diagnose", "testdata", "healthy-ten-minutes.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var all []trace.Record
	for reader := trace.NewReader(in); ; {
		r, _, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
}

// largeFile is a record file, with the number of a line that is none.
type largeFile struct {
	path   string
	broken int
}

// recordFile writes records over and over, each time ten minutes later and of other
// lookups, up to a size.
func recordFile(t *testing.T, records []trace.Record, size int) largeFile {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "records.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewWriter(f)
	file := largeFile{path: f.Name()}
	written, lines := 0, 0
	var b []byte
	for round := 0; written < size; round++ {
		for _, r := range records {
			h := *r.Head()
			was := h
			h.Time = h.Time.Add(time.Duration(round) * 11 * time.Minute)
			h.Flow[0] = byte(round)
			h.TraceID = trace.NewTraceID(h.Time, h.Flow)
			*r.Head() = h
			b = append(r.AppendJSON(b[:0]), '\n')
			*r.Head() = was
			b = bytes.Replace(b, []byte(".calm.test."), fmt.Appendf(nil, ".c%d.test.", round), 1)
			if lines++; file.broken == 0 && written > size/2 {
				file.broken = lines
				b = append(b[:len(b)/2], '\n')
			}
			written += len(b)
			if _, err := out.Write(b); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(out.Flush(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return file
}

// collected is a line of Go's own account of its heap (GODEBUG=gctrace=1): the
// megabytes before, at the end of, and after a collection.
var collected = regexp.MustCompile(` ([0-9]+)->[0-9]+->[0-9]+ MB, `)

// readingHeap runs bin/dnstrace on a file, and returns the largest heap that it had.
func readingHeap(t *testing.T, file largeFile, args []string) int {
	t.Helper()
	cmd := exec.Command(filepath.Join("..", "bin", "dnstrace"), append(args, "--from", file.path)...)
	cmd.Env = append(os.Environ(), "GODEBUG=gctrace=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	state := cmd.ProcessState
	t.Logf("dnstrace %s: %s of CPU time", strings.Join(args, " "), (state.UserTime() + state.SystemTime()).Round(10*time.Millisecond))
	if want := fmt.Sprintf("%s: line %d: ", file.path, file.broken); !strings.Contains(stderr.String(), want) {
		t.Errorf("the broken line is not named as %q", want)
	}
	largest := 0
	for _, m := range collected.FindAllStringSubmatch(stderr.String(), -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		largest = max(largest, n<<20)
	}
	if largest == 0 {
		t.Fatal("Go gave no account of its heap")
	}
	return largest
}
