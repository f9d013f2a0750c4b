package kube

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/dnstrace/dnstrace/trace"
)

// lists what an API server has, and returns the error.
func ask(t *testing.T, cfg *rest.Config) error {
	t.Helper()
	from, err := dial(cfg, node)
	if err != nil {
		return err
	}
	_, err = from.pods.ListWithContext(t.Context(), metav1.ListOptions{})
	return err
}

// The token is for the API server alone: a redirect is not followed.
func TestTokenStaysWithTheAPIServer(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the other host was asked, with %q", r.Header.Get("Authorization"))
	}))
	defer other.Close()
	shown := ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown = r.Header.Get("Authorization")
		http.Redirect(w, r, other.URL+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	defer s.Close()
	if err := ask(t, &rest.Config{Host: s.URL, BearerToken: "secret"}); err == nil || shown != "Bearer secret" {
		t.Errorf("%v; the API server got %q", err, shown)
	}
	if http.DefaultClient.CheckRedirect != nil {
		t.Error("everybody's client was changed")
	}
}

// What an API server says makes one line, without escape sequences.
func TestReasonOfTheAPIServerIsPlain(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"no\n\u001b[2Jdnstrace: ready` + strings.Repeat("x", 100_000) + `"}`))
	}))
	defer s.Close()
	err := ask(t, &rest.Config{Host: s.URL})
	if err == nil || !strings.Contains(err.Error(), "\n\x1b") {
		t.Fatalf("the attack did not come through: %.200v", err)
	}
	var reported string
	c := newCluster(Config{Node: node, Changed: func(state string) { reported = state }}, nil)
	c.watch(lists{})
	c.sources[0].note(err)
	for _, said := range []string{reported, c.State().Err} {
		if !strings.Contains(said, "dnstrace: ready") || strings.ContainsAny(said, "\n\x1b") || len(said) > 2*maxReason {
			t.Errorf("%.600q", said)
		}
	}
}

// An address with a password is in no message, even if it is none.
func TestAPIServersPasswordIsNotShown(t *testing.T) {
	for _, address := range []string{"https://user:secret@127.0.0.1:1", "https://user:sec%zzret@127.0.0.1:1", "user:secret@127.0.0.1:1", "https://user:secret@127.0.0.1:1/?a=b"} {
		err := ask(t, &rest.Config{Host: address})
		if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "zzret") {
			t.Errorf("%s: %v", address, err)
		}
		if got := hostOf(address); strings.Contains(got, "secret") || strings.Contains(got, "zzret") {
			t.Errorf("%s: %s", address, got)
		}
	}
}

// The maker of a pod chooses its labels and owner: at most of its own namespace, and in a
// record each stays one text.
func TestHostilePodLabels(t *testing.T) {
	const forged = "x\n\x1b[2J\"},{\xff"
	controls := true
	o := aPod("mypod", uid, podIP.String())
	o.Labels = map[string]string{"pod-template-hash": forged}
	o.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "kube-system/coredns-" + forged, Controller: &controls}}
	o.Spec.Containers = []corev1.Container{{Name: forged}}
	p := newPod(o, start)
	ex := &trace.Exchange{Client: &trace.Endpoint{}}
	p.fill(ex.Client)
	if ex.Client.Namespace != o.Namespace || ex.Client.Pod != "mypod" || ex.Client.Workload != "Deployment/kube-system/coredns" {
		t.Errorf("%+v", ex.Client)
	}
	if line := ex.AppendJSON(nil); !json.Valid(line) || bytes.ContainsFunc(line, unicode.IsControl) {
		t.Errorf("%q", line)
	}
}
