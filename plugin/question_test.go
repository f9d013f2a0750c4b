package dnstrace

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
)

// hears is an upstream that notes what it is asked for. It knows of A records only,
// and of no name below search.org.
type hears struct {
	mu    sync.Mutex
	asked []string
	addr  string
}

func hearing(t *testing.T) *hears {
	t.Helper()
	l := new(hears)
	l.addr = upstream(t, func(w dns.ResponseWriter, r *dns.Msg) {
		q := r.Question[0]
		l.mu.Lock()
		l.asked = append(l.asked, strings.ToLower(q.Name)+" "+dns.Type(q.Qtype).String())
		l.mu.Unlock()
		switch {
		case dns.IsSubDomain("search.org.", q.Name):
			answerRcode(dns.RcodeNameError)(w, r)
		case q.Qtype == dns.TypeA:
			answerA(w, r)
		default:
			answerRcode(dns.RcodeSuccess)(w, r)
		}
	})
	return l
}

// questions returns what l was asked for since the last call, in order of name: health
// checks, which ask for the root, left out.
func (l *hears) questions() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := slices.DeleteFunc(l.asked, func(q string) bool { return strings.HasPrefix(q, ". ") })
	l.asked = nil
	slices.Sort(all)
	return all
}

// questionsOf returns the questions of attempts, of a query or its refresh with the
// fields d: those that differ from d with a star, which is taken off in plain.
func questionsOf(d *trace.DNS, list []trace.Attempt) (marked, plain []string) {
	for _, a := range list {
		name, qtype := a.QName, a.QType
		mark := "*"
		if name == "" && qtype == "" {
			mark = ""
		}
		if name == "" {
			name = d.QName
		}
		if qtype == "" {
			qtype = d.QType
		}
		marked = append(marked, name+" "+qtype+mark)
		plain = append(plain, name+" "+qtype)
	}
	slices.Sort(plain)
	return marked, plain
}

// What an attempt asked for is what the upstream heard, and is recorded where it is not what
// the client asked for.
func TestQuestionOfAttempt(t *testing.T) {
	dir := t.TempDir()
	zone, resolv := filepath.Join(dir, "zone"), filepath.Join(dir, "resolv.conf")
	const chained = zoneFile + "first 60 IN CNAME second\nsecond 60 IN CNAME Target.Example.NET.\nback 60 IN CNAME old.net.\n"
	for path, content := range map[string]string{zone: chained, resolv: "search search.org example.com\nnameserver 192.0.2.1\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const template = "template ANY ANY old.org {\n answer \"{{ .Name }} 60 IN CNAME target.net.\"\n }\n"
	file := "file " + zone + " example.org\n"
	for _, tc := range []struct {
		name, plugins string
		ask           string
		want          string
	}{
		{"the client's own", "", "Old.org. A", "old.org. A"},
		{"name", "rewrite name old.org NEW.org", "Old.org. A", "new.org. A*"},
		{"only its case", "rewrite name old.org OLD.org", "old.org. A", "old.org. A"},
		{"suffix", "rewrite name suffix .org .net answer auto", "old.org. A", "old.net. A*"},
		{"type", "rewrite type AAAA A", "old.org. AAAA", "old.org. A*"},
		{"both", "rewrite continue {\n name exact old.org new.org\n }\n rewrite type AAAA A", "old.org. AAAA", "new.org. A*"},
		{"behind a cache", "cache\n rewrite name old.org new.org", "old.org. A", "new.org. A*"},
		{"search path", "autopath example.org " + resolv, "old.search.org. A", "old.search.org. A"},
		{"search path of the client", "autopath search.org " + resolv, "old.search.org. A", "old.search.org. A, old.example.com. A*"},
		{"CNAME of file", file, "www.example.org. A", "target.example.net. A*"},
		{"with cache", "cache\n" + file, "www.example.org. A", "target.example.net. A*"},
		{"CNAME of a CNAME of file", file, "first.example.org. A", "target.example.net. A*"},
		{"CNAME of file, other type", file, "www.example.org. AAAA", "target.example.net. AAAA*"},
		{"CNAME of template", template, "old.org. A", "target.net. A*"},

		{"rewritten CNAME target", "rewrite name target.example.net other.net\n" + file, "www.example.org. A", "other.net. A*"},
		{"no AAAA, then A", "dns64 {\n allow_ipv4\n }", "old.org. AAAA", "old.org. AAAA, old.org. A*"},
		{"no AAAA, then A, of a rewritten name", "dns64 {\n allow_ipv4\n }\n rewrite name old.org new.org", "old.org. AAAA", "new.org. AAAA*, new.org. A*"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			up := hearing(t)
			s := start(t, ".:0 {\n bind 127.0.0.1\n dnstrace {\n output file $RECORDS\n }\n"+tc.plugins+"\n forward . "+up.addr+"\n}")
			name, qtype, _ := strings.Cut(tc.ask, " ")
			s.ask(name, dns.StringToType[qtype])
			q := s.query(1)
			marked, plain := questionsOf(&q.DNS, q.Upstreams)
			if got := strings.Join(marked, ", "); got != tc.want {
				t.Errorf("asked for %s, want %s", got, tc.want)
			}
			if heard := up.questions(); !slices.Equal(plain, heard) {
				t.Errorf("asked for %v, the upstream heard %v", plain, heard)
			}
		})
	}
}

// Every attempt of a hop has the question of the hop.
func TestQuestionOfFailover(t *testing.T) {
	down, up := refusing(t), hearing(t)
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		rewrite name old.org new.org
		forward other.org 192.0.2.1
		forward . `+down+` `+up.addr+` {
			policy sequential
		}
	}`)
	s.ask("old.org.", dns.TypeA)
	q := s.query(1)
	if marked, _ := questionsOf(&q.DNS, q.Upstreams); strings.Join(marked, ", ") != "new.org. A*, new.org. A*" {
		t.Errorf("asked for %v", marked)
	}
}

// What the cache asks for again in the background is what it was asked for.
func TestQuestionOfRefresh(t *testing.T) {
	a := &aging{delay: 200 * time.Millisecond} // a refresh that ends before the answer is sent is a part of its query
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		rewrite name old.org new.org
		cache {
			success 100 3600 1
			serve_stale 1h immediate
		}
		forward . `+upstream(t, a.serve)+`
	}`)
	s.ask("old.org.", dns.TypeA)
	time.Sleep(expired)
	s.ask("old.org.", dns.TypeA)
	_, refreshes := split(s.wait(3))
	if len(refreshes) != 1 {
		t.Fatalf("%d refreshes", len(refreshes))
	}
	if marked, _ := questionsOf(&refreshes[0].DNS, refreshes[0].Upstreams); strings.Join(marked, ", ") != "new.org. A*" {
		t.Errorf("asked for %v", marked)
	}
}

// Lookups that a plugin makes at the same time are distinguished, and so are queries
// whose lookups have the same target.
func TestQuestionsAtOnce(t *testing.T) {
	up := hearing(t)
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		`+severalName+`
		forward . `+up.addr+`
	}`)
	var clients sync.WaitGroup
	for range 4 {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			clients.Go(func() {
				if _, _, err := new(dns.Client).Exchange(new(dns.Msg).SetQuestion(severalName+".org.", qtype), s.addr); err != nil {
					t.Error(err)
				}
			})
		}
	}
	clients.Wait()
	for _, r := range s.wait(8) {
		q := r.(*trace.Query)
		if _, plain := questionsOf(&q.DNS, q.Upstreams); !slices.Equal(plain, severalQuestions(q.QType)) {
			t.Errorf("%s: asked for %v", q.QType, plain)
		}
		checkTimes(t, q)
	}
}

// severalQuestions is what the plugin several asks for, in order of name.
func severalQuestions(qtype string) []string {
	all := []string{"one.net. A", "one.net. AAAA", severalName + ".org. " + qtype, "two.net. A", "two.net. AAAA"}
	slices.Sort(all)
	return all
}
