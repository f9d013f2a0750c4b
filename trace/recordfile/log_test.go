package recordfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// logRig is a log in a folder, and what it warned of.
type logRig struct {
	t        *testing.T
	path     string
	log      *Log
	warnings []error
}

func newLogRig(t *testing.T) *logRig {
	r := &logRig{t: t, path: filepath.Join(t.TempDir(), "records.jsonl")}
	var err error
	if r.log, err = OpenLog(r.path, func(err error) { r.warnings = append(r.warnings, err) }); err != nil {
		t.Fatal(err)
	}
	return r
}

// append appends a line after the next look at the path is due.
func (r *logRig) append(line string) {
	r.t.Helper()
	time.Sleep(rotationDelay)
	if n, err := r.log.Append([]byte(line + "\n")); n != 1 || err != nil {
		r.t.Errorf("%d lines, %v", n, err)
	}
}

func (r *logRig) expect(path, want string) {
	r.t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		r.t.Errorf("%s: %q, %v; expected %q", filepath.Base(path), got, err, want)
	}
}

// Lines go to the file that the path names, whether it was renamed, removed, or made by
// whoever rotated it.
func TestLogIsRotated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLogRig(t)
		r.append("1")
		if err := os.Rename(r.path, r.path+".1"); err != nil {
			t.Fatal(err)
		}
		r.append("2")
		r.expect(r.path+".1", "1\n")
		r.expect(r.path, "2\n")
		if err := os.Remove(r.path); err != nil {
			t.Fatal(err)
		}
		r.append("3")
		r.expect(r.path, "3\n")
		if err := errors.Join(os.Rename(r.path, r.path+".1"), os.WriteFile(r.path, []byte("torn"), 0o600)); err != nil {
			t.Fatal(err)
		}
		r.append("4")
		r.expect(r.path, "torn\n4\n")
		if err := r.log.Close(); err != nil || len(r.warnings) > 0 {
			t.Error(err, r.warnings)
		}
	})
}

// Where no new file can be opened, lines go on to the old one, which is said once.
func TestLogCannotBeOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newLogRig(t)
		if err := errors.Join(os.Rename(r.path, r.path+".1"), os.Mkdir(r.path, 0o700)); err != nil {
			t.Fatal(err)
		}
		r.append("1")
		r.append("2")
		r.expect(r.path+".1", "1\n2\n")
		if len(r.warnings) != 1 {
			t.Error(r.warnings)
		}
		if err := os.Remove(r.path); err != nil {
			t.Fatal(err)
		}
		r.append("3")
		r.expect(r.path, "3\n")
	})
}

// pipe takes so many bytes.
type pipe struct {
	room    int
	content []byte
}

var errFull = errors.New("full")

func (p *pipe) Write(b []byte) (int, error) {
	n := min(p.room, len(b))
	p.room -= n
	p.content = append(p.content, b[:n]...)
	if n < len(b) {
		return n, errFull
	}
	return n, nil
}

// However much of a write a stream takes, each line that was said to be in it is there.
func TestLinesThatAreTorn(t *testing.T) {
	const lines = "one\ntwo\n"
	for room, want := range map[int]string{
		0: "x\n", 1: "o\nx\n", 3: "one\nx\n", 4: "one\nx\n", 5: "one\nt\nx\n", 7: "one\ntwo\nx\n", 8: "one\ntwo\nx\n",
	} {
		p, l := &pipe{room: room}, Lines{}
		whole, err := l.WriteTo(p, []byte(lines))
		p.room = 100
		after, again := l.WriteTo(p, []byte("x\n"))
		if string(p.content) != want || (err == nil) != (room == len(lines)) || after != 1 || again != nil || whole != (room+1)/4 {
			t.Errorf("room %d: %q, %d lines, %v, then %d, %v; expected %q", room, p.content, whole, err, after, again, want)
		}
	}
}
