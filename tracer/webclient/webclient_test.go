package webclient

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A server that redirects, to whatever host, gets no header of ours sent there.
func TestRedirectIsNotFollowed(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the other host was asked, with %v", r.Header)
	}))
	defer other.Close()
	for _, code := range []int{301, 302, 303, 307, 308} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", strings.Replace(other.URL, "http://", "http://user:secret@", 1)+"/path?token=secret")
			w.WriteHeader(code)
		}))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Scope-OrgID", "tenant")
		req.SetBasicAuth("user", "secret")
		resp, err := New(nil).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := Redirect(resp); resp.StatusCode != code || !strings.Contains(got, other.URL) || strings.Contains(got, "secret") {
			t.Errorf("%d: %s", resp.StatusCode, got)
		}
		s.Close()
	}
}

// A host that is no host does not write what it likes into an error.
func TestRedirectIsPlain(t *testing.T) {
	resp := &http.Response{StatusCode: 302, Header: http.Header{"Location": {"http://a\u202e" + strings.Repeat("x", 1000) + "/"}}}
	if got := Redirect(resp); strings.Contains(got, "\u202e") || len(got) > 400 {
		t.Errorf("%q", got)
	}
	if got := Redirect(&http.Response{StatusCode: 200}); got != "" {
		t.Errorf("%q", got)
	}
}
