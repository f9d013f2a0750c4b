package dnstrace

import (
	"os"
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
		time.Sleep(rotationDelay)
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
			time.Sleep(rotationDelay)
		}
		s.ask("example.org.", dns.TypeA)
	}
	eventually(t, func() bool { return len(readRecords(t, dir+".old/records.jsonl")) == 2 })
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	time.Sleep(rotationDelay)
	s.ask("example.org.", dns.TypeA)
	eventually(t, func() bool {
		_, err := os.Stat(dir + "/records.jsonl")
		return err == nil && len(readRecords(t, dir+"/records.jsonl")) == 1
	})
}
