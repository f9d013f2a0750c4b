package integration

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// A node has a wrong link address for its server, and a server one for the node: a bridge
// floods the query to all of its ports, and nobody takes it; nor does the node the response.
func TestDiagnoseWrongLinkAddress(t *testing.T) {
	r := newFaultRigInLab(t, plainForwarding, "--timeout", "2s")
	r.answered(lab.Query{Name: "healthy.test."})
	undo, err := r.WrongNeighbour(lab.Node, "cni0", r.Host(lab.CoreDNS).V4)
	if err != nil {
		t.Fatal(err)
	}
	r.fails(lab.Query{Name: "query.mac.test.", Timeout: time.Second})
	r.finds("query.mac.test.", "dropped-other", "The client's query has a wrong link address (MAC)", "OTHERHOST")
	undo()
	if undo, err = r.WrongNeighbour(lab.Upstream, "eth0", lab.NodeUplinkV4); err != nil {
		t.Fatal(err)
	}
	r.fails(lab.Query{Name: "response.mac.test.", Server: r.Upstream(0).V4(), Timeout: time.Second})
	r.finds("response.mac.test.", "dropped-other", "The response to the client's query has a wrong link address (MAC)", "OTHERHOST", r.Host(lab.Node).Netns)
	undo()
	if tr := r.trace("healthy.test."); len(tr.Diagnosis) != 0 {
		t.Errorf("findings %v", findings(tr))
	}
	r.keep("wrong-link-address", "mac.test")
}

// CoreDNS is gone, and another process has its port: it is the one that is named.
func TestDiagnoseAnotherProcessHasTheSocket(t *testing.T) {
	r := newFaultRigInLab(t, plainForwarding, "--timeout", "2s")
	r.answered(lab.Query{Name: "healthy.test."})
	if err := r.server.Stop(); err != nil {
		t.Fatal(err)
	}
	var deaf net.PacketConn
	if err := r.Host(lab.CoreDNS).Do(func() (err error) { deaf, err = net.ListenPacket("udp", ":53"); return err }); err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	time.Sleep(3 * time.Second) // the tracer looks who listens every few seconds
	r.fails(lab.Query{Name: "deaf.test.", Timeout: time.Second})
	tr := r.trace("deaf.test.")
	said := evidence(t, tr, "no-response-seen")
	if strings.Contains(said, "coredns (process") || tr.Server != nil && tr.Server.Process == "coredns" {
		t.Errorf("the server is said to be CoreDNS: %+v: %s", tr.Server, said)
	}
	wantAll(t, said, "which never read it", r.Host(lab.CoreDNS).Netns)
}
