package trace

import (
	"encoding/json"
	"strings"
	"testing"
)

// Whether the Service was inferred is said where it was, and only there.
func TestServiceInferred(t *testing.T) {
	for _, inferred := range []bool{false, true} {
		want := Endpoint{Pod: "coredns-1", Namespace: "kube-system", Service: "kube-system/kube-dns", ServiceInferred: inferred}
		text := want.appendJSON(nil)
		if strings.Contains(string(text), "service_inferred") != inferred {
			t.Errorf("%s", text)
		}
		var got Endpoint
		if err := json.Unmarshal(text, &got); err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
}
