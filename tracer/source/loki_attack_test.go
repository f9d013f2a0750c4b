package source

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// repeated gives a text n times.
type repeated struct {
	text string
	left int
	rest string
}

func (r *repeated) Read(b []byte) (int, error) {
	if r.rest == "" {
		if r.left == 0 {
			return 0, io.EOF
		}
		r.left--
		r.rest = r.text
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// A small answer that grows without bound when it is decompressed, or decoded, ends
// with an error, and takes no more memory than the bound. A smaller one than the usual does,
// where the race detector would take a minute to get there.
func TestLokiBomb(t *testing.T) {
	const front = `{"status":"success","data":{"resultType":"streams","result":[`
	const small = 2 << 20
	if c, err := (Loki{URL: "http://loki:3100"}).client(); err != nil || c.most != maxAnswer {
		t.Errorf("by itself the bound is %d, %v", c.most, err)
	}
	for _, tc := range []struct {
		name, front, again string
		most               int64
		want               string
	}{
		{"lines", front + `{"values":[`, `["1","a"],`, maxAnswer, "more than the 1000 lines that were asked for"},
		{"streams", front, `{"values":[["1","a"]]},`, maxAnswer, "more than the 1000 lines"},
		{"empty streams", front, `{},`, small, "more than 2 MB"},
		{"one line", front + `{"values":[["1","`, strings.Repeat("0", 1000), small, "more than 2 MB"},
		{"names", front + `{"stream":{`, strings.Repeat(`"a":"b",`, 100), small, "more than 2 MB"},
		{"nothing", `{"data":`, strings.Repeat(" ", 1000), small, "more than 2 MB"},
		{"depth", front, "[[[[[[[[[[", small, "the answer is not Loki's"},
		{"depth beside", `{"x":`, "[[[[[[[[[[", small, "the answer is not Loki's"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := lokiOf(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
				_, _ = io.Copy(z, io.MultiReader(strings.NewReader(tc.front), &repeated{text: tc.again, left: 2 * int(tc.most) / len(tc.again)}))
				_ = z.Close()
			}))
			stop := make(chan struct{})
			peak := make(chan uint64)
			runtime.GC()
			before := heapInUse()
			go func() {
				var largest uint64
				for {
					largest = max(largest, heapInUse())
					select {
					case <-stop:
						peak <- largest
						return
					case <-time.After(5 * time.Millisecond):
					}
				}
			}()
			l.most = tc.most
			_, err := l.Each(t.Context(), Request{}, nil)
			close(stop)
			if got := <-peak; got > 8*uint64(tc.most)+before {
				t.Errorf("%d MB of memory", got>>20)
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// heapInUse returns how many bytes are in use, garbage among them.
func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// What a server says in an error is one line, of a bounded length, without escape
// sequences.
func TestLokiReasonIsPlain(t *testing.T) {
	const forged = "busy\r\n\x1b[2J\x1b]0;t\adnstrace: ready\u202e"
	for name, answer := range map[string]http.HandlerFunc{
		"body": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, forged+strings.Repeat("x", 10<<20), 400) },
		"type": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"data":{"resultType":%q}}`, "a\nb"+strings.Repeat("x", 1<<20))
		},
		"time": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"data":{"resultType":"streams","result":[{"values":[["\u001b[2J\n","x"]]}]}}`)
		},
		"no JSON": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"`+"\x1b[2J\u202e\x9b") },
		"redirect": func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Location"] = []string{"http://a\u202e/"}
			w.WriteHeader(302)
		},
	} {
		_, err := lokiOf(t, answer).Each(t.Context(), Request{}, nil)
		if err == nil || strings.ContainsAny(err.Error(), "\n\r\x1b\a\u202e") || !utf8.ValidString(err.Error()) || len(err.Error()) > 1000 {
			t.Errorf("%s: %.1200q", name, err)
		}
	}
}

// Lines that are no records are reported without what they would do to a terminal.
func TestLokiErrorIsPlain(t *testing.T) {
	f := &fakeLoki{entries: []lokiEntry{{at: start, line: []byte(`{"v":1,"record":"` + "\\u001b[2J\\ndnstrace: ready" + `"}`)}}}
	l := lokiOf(t, f)
	var stderr strings.Builder
	l.Stderr = &stderr
	if _, err := l.Each(t.Context(), Request{Since: 2 * time.Hour}, nil); err != nil {
		t.Fatal(err)
	}
	if got := stderr.String(); strings.Count(got, "\n") != 1 || strings.Contains(got, "\x1b") {
		t.Errorf("%q", got)
	}
}

// Lines of a time that nobody asked for would stay in memory while Loki is followed.
func TestLokiLineThatWasNotAskedFor(t *testing.T) {
	l := lokiOf(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"data":{"resultType":"streams","result":[{"values":[["1","x"]]}]}}`)
	}))
	if _, err := l.Each(t.Context(), Request{Follow: true}, nil); err == nil || !strings.Contains(err.Error(), "a line of 1970-01-01T00:00:00.000000001Z, which was not asked for") {
		t.Error(err)
	}
}

// However a URL is wrong, no message repeats the password that it may hold; one that is
// right but for a password is refused.
func TestLokiPasswordIsNotShown(t *testing.T) {
	for _, u := range []string{
		"http://user:secret@loki:3100", "http://secret@loki:3100", "user:secret@loki:3100", "http://user:sec%zzret@loki:3100", "http://user:secret@lo ki:3100",
		"http://user:secret@loki:port", "http:/user:secret@loki", "ftp://user:secret@loki", "//user:secret@loki", "http://loki:3100/?token=secret", "http://loki:3100/#secret",
		"http://user:secret\x7f@loki",
	} {
		l := Loki{URL: u, Stderr: t.Output(), Joining: realJoining()}
		_, err := l.Each(t.Context(), Request{}, nil)
		if err == nil {
			t.Errorf("%s: taken", u)
			continue
		}
		for _, s := range []string{l.String(), err.Error()} {
			if strings.Contains(s, "secret") || strings.Contains(s, "ret@") {
				t.Errorf("%s: %s", u, s)
			}
		}
	}
}

// Credentials come from where other users do not see them, and go to Loki alone.
func TestLokiAccess(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	if err := os.WriteFile(file, []byte("from file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		env  map[string]string
		want string // Authorization and tenant, or a part of the error
	}{
		{nil, " "},
		{map[string]string{"LOKI_USERNAME": "u", "LOKI_PASSWORD": "p", "LOKI_ORG_ID": "team"}, "Basic dTpw team"},
		{map[string]string{"LOKI_USERNAME": "u", "LOKI_PASSWORD_FILE": file}, "Basic dTpmcm9tIGZpbGU= "},
		{map[string]string{"LOKI_BEARER_TOKEN": "t"}, "Bearer t "},
		{map[string]string{"LOKI_BEARER_TOKEN_FILE": file}, "Bearer from file "},
		{map[string]string{"LOKI_BEARER_TOKEN": "secret", "LOKI_USERNAME": "u"}, "LOKI_BEARER_TOKEN excludes LOKI_USERNAME"},
		{map[string]string{"LOKI_PASSWORD": "secret", "LOKI_PASSWORD_FILE": file}, "LOKI_PASSWORD and LOKI_PASSWORD_FILE exclude each other"},
		{map[string]string{"LOKI_PASSWORD_FILE": dir + "/absent"}, "LOKI_PASSWORD_FILE: open "},
		{map[string]string{"LOKI_CA_CERT_PATH": file}, "no certificate in " + file},
	} {
		got := ""
		access, err := EnvironmentAccess(func(name string) string { return tc.env[name] })
		if err != nil {
			got = err.Error()
		} else {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got = r.Header.Get("Authorization") + " " + r.Header.Get("X-Scope-OrgID")
				fmt.Fprint(w, `{"data":{"resultType":"streams","result":[]}}`)
			}))
			l := Loki{URL: s.URL, Access: access, Stderr: t.Output(), Joining: realJoining()}
			if _, err := l.Each(t.Context(), Request{}, nil); err != nil {
				t.Error(err)
			}
			s.Close()
		}
		if err == nil && got != tc.want || err != nil && !strings.Contains(got, tc.want) || err != nil && (strings.Contains(got, "from file") || strings.Contains(got, "secret ")) {
			t.Errorf("%v: got %q, want %q", tc.env, got, tc.want)
		}
	}
}

// A Loki that sends elsewhere gets neither tenant nor credentials sent there.
func TestLokiRedirect(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("the other host got %v", r.Header) }))
	defer other.Close()
	l := lokiOf(t, http.RedirectHandler(other.URL, http.StatusFound))
	l.Access = Access{User: "u", Password: "p", Tenant: "team"}
	_, err := l.Each(t.Context(), Request{}, nil)
	if err == nil || !strings.Contains(err.Error(), "302 Found: it leads to "+other.URL+", which is not followed") {
		t.Error(err)
	}
}

// A Loki that has more lines whatever it is asked for, all of one moment or each a nanosecond after
// the other, ends with an error.
func TestLokiWithoutEnd(t *testing.T) {
	for name, step := range map[string]int64{"one moment": 0, "moments": 1} {
		t.Run(name, func(t *testing.T) {
			l := lokiOf(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				start, err := strconv.ParseInt(r.FormValue("start"), 10, 64)
				limit, limitErr := strconv.Atoi(r.FormValue("limit"))
				if err = errors.Join(err, limitErr); err != nil {
					t.Error(err)
				}
				var b bytes.Buffer
				b.WriteString(`{"status":"success","data":{"resultType":"streams","result":[{"values":[`)
				for i := range limit {
					if i > 0 {
						b.WriteByte(',')
					}
					fmt.Fprintf(&b, `["%d","{}"]`, start+int64(i)*step)
				}
				b.WriteString(`]}]}}`)
				_, _ = w.Write(b.Bytes())
			}))
			l.Stderr = io.Discard
			_, err := l.Each(t.Context(), Request{Since: time.Hour}, func(Lookup) error { return nil })
			if err == nil || !strings.Contains(err.Error(), "is something else at this address?") {
				t.Errorf("%v", err)
			}
		})
	}
}
