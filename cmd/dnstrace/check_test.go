package main

import (
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/tracer/capture"
)

// What check prints of a node on which the tracer works, with something missing,
// and of one on which it does not.
func TestFindingsOfCheck(t *testing.T) {
	limited := []capture.Finding{
		{What: "kernel", OK: true, Required: true, Detail: "6.1.0-13-amd64"},
		{What: "DNS over TCP", Detail: "bpf_dynptr_from_skb is not there",
			Lost: "lookups over TCP between pods", Remedy: "Linux 6.12 or later"},
		{What: "names of pods", Detail: "no API server: this is no pod", Lost: "the names of pods and Services", Remedy: "--kubernetes KUBECONFIG"},
	}
	var out strings.Builder
	if err := printFindings(&out, limited); err != nil {
		t.Error(err)
	}
	golden(t, "check-limited.txt", out.String())

	out.Reset()
	missing := append([]capture.Finding{{What: "privileges", Required: true, Detail: "operation not permitted",
		Lost: "everything", Remedy: "run as root, or with CAP_BPF and CAP_PERFMON"}}, limited...)
	if err := printFindings(&out, missing); err == nil || !strings.Contains(err.Error(), "MISSING") {
		t.Errorf("error %v", err)
	}
	golden(t, "check-missing.txt", out.String())
}
