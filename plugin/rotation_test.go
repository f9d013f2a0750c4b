package dnstrace

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// A renamed file is left within a second, and a new one begun; no record is
// lost on the way.
func TestRotation(t *testing.T) {
	s := whoami(t, "output file $RECORDS")
	asked := 0
	ask := func() {
		s.ask("example.org.", dns.TypeA)
		asked++
	}
	total := 0
	for round := range 2 {
		ask()
		s.wait(1)
		old := s.records + ".1"
		if err := os.Rename(s.records, old); err != nil {
			t.Fatal(err)
		}
		if round == 1 { // as a rotation that makes the new file itself
			if err := os.WriteFile(s.records, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		ask() // soon after: it may go to either
		time.Sleep(time.Second)
		ask()
		eventually(t, func() bool {
			info, err := os.Stat(s.records)
			return err == nil && info.Size() > 0
		})
		eventually(t, func() bool {
			return total+len(readRecords(t, old))+len(readRecords(t, s.records)) == asked
		})
		total += len(readRecords(t, old))
		if info, err := os.Stat(s.records); err != nil || info.Mode().Perm()&^0o640 != 0 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		total += len(readRecords(t, s.records))
		if err := os.Truncate(s.records, 0); err != nil {
			t.Fatal(err)
		}
	}
	if got := written("file " + s.records); int(got) != asked || total != asked {
		t.Errorf("the metric says %v, the files have %d of %d", got, total, asked)
	}
}

// Where no new file can be opened, records go on to the old one.
func TestRotationFails(t *testing.T) {
	dir := t.TempDir() + "/logs"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := whoami(t, "output file "+dir+"/records.jsonl")
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if i > 0 {
			time.Sleep(time.Second)
		}
		s.ask("example.org.", dns.TypeA)
	}
	eventually(t, func() bool { return len(readRecords(t, dir+".old/records.jsonl")) == 2 })
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	s.ask("example.org.", dns.TypeA)
	eventually(t, func() bool {
		_, err := os.Stat(dir + "/records.jsonl")
		return err == nil && len(readRecords(t, dir+"/records.jsonl")) == 1
	})
}

// What another puts in the place of a renamed file is not written to: records go on to
// the old one. Each is logged once.
func TestRotationToWhatOthersPrepared(t *testing.T) {
	dir := t.TempDir()
	victim, pipe := filepath.Join(dir, "victim"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(victim, nil, 0o600), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, prepare := range map[string]func(path string) error{
		"link": func(path string) error { return os.Symlink(victim, path) },
		"pipe": func(path string) error { return os.Rename(pipe, path) },
		"mode": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, 0o666))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "records.jsonl")
			s := whoami(t, "output file "+path)
			if err := os.Rename(path, path+".old"); err != nil {
				t.Fatal(err)
			}
			if err := prepare(path); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			s.ask("example.org.", dns.TypeA)
			s.stop()
			if n := len(readRecords(t, path+".old")); n != 1 {
				t.Errorf("the old file has %d records", n)
			}
			if info, err := os.Stat(path); err != nil || info.Size() != 0 {
				t.Errorf("what was put there has %d bytes, %v", info.Size(), err)
			}
		})
	}
}
