package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// StartCoreDNS starts bin/coredns in the CoreDNS pod with a Corefile, and waits
// until it listens on port 53.
func (l *Lab) StartCoreDNS(corefile string) (*Process, error) {
	return l.StartCoreDNSOn(CoreDNS, corefile)
}

// StartCoreDNSOn is StartCoreDNS on another host, for example a node-local
// cache on Node.
func (l *Lab) StartCoreDNSOn(host, corefile string) (*Process, error) {
	return l.StartServer(DNSServer{Host: host, Port: 53}, corefile)
}

// StartServer starts bin/coredns in the place of a topology's server.
func (l *Lab) StartServer(s DNSServer, corefile string) (*Process, error) {
	path, err := findBinary(l.cfg.CoreDNS, "coredns")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(l.dir, "Corefile-"+s.Host)
	if err := os.WriteFile(file, []byte(corefile), 0o644); err != nil {
		return nil, err
	}
	return l.Start(Spec{
		Name: "coredns", Host: s.Host, Path: path, Args: []string{"-conf", file}, Ready: ReadyListening(s.Port),
	})
}

// StartDnsmasq starts dnsmasq in the CoreDNS pod in CoreDNS's stead, forwarding
// to the given servers on port 53, without files of the machine's own. args are
// added to its command line.
func (l *Lab) StartDnsmasq(servers []netip.Addr, args ...string) (*Process, error) {
	all := []string{
		"--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null",
		"--pid-file=", // with -x /dev/null dnsmasq deletes the device
		"--user=root", // a change of user would clear Pdeathsig
		"--no-resolv", "--no-hosts", "--port=53",
	}
	for _, s := range servers {
		all = append(all, "--server="+s.String())
	}
	p, err := l.Start(Spec{
		Name: "dnsmasq", Host: CoreDNS, Path: "dnsmasq", Args: append(all, args...), Ready: ReadyListening(53),
	})
	if err != nil {
		return nil, fmt.Errorf("%w (of the Debian package dnsmasq-base)", err)
	}
	return p, nil
}

// RecordFile is where StartTracer's tracer writes its records.
func (l *Lab) RecordFile() string { return filepath.Join(l.dir, "records.jsonl") }

// StartTracer starts `dnstrace run` on the host, where it sees every namespace,
// and waits for its line `dnstrace: ready`. It listens on RecordSocket and
// APISocket, writes records of both kinds to RecordFile, serves no metrics and asks no
// Kubernetes.
// args are added after those flags, so they win where a flag holds one value.
func (l *Lab) StartTracer(args ...string) (*Process, error) {
	return l.startTracer(l.cfg.Dnstrace, nil, args)
}

// StartTracerTo is StartTracer with a standard output of the caller's, which it may
// close then.
func (l *Lab) StartTracerTo(stdout *os.File, args ...string) (*Process, error) {
	return l.startTracer(l.cfg.Dnstrace, stdout, args)
}

// StartTracerAt is StartTracer with another binary than that of the [Config].
func (l *Lab) StartTracerAt(binary string, args ...string) (*Process, error) {
	return l.startTracer(binary, nil, args)
}

func (l *Lab) startTracer(binary string, stdout *os.File, args []string) (*Process, error) {
	path, err := findBinary(binary, "dnstrace")
	if err != nil {
		return nil, err
	}
	if !slices.Contains(args, "--record") {
		args = append([]string{"--record", "exchange,trace"}, args...)
	}
	all := append([]string{
		"run", "--listen", l.RecordSocket(), "--api", l.APISocket(),
		"--output", "file:" + l.RecordFile(), "--metrics", "", "--kubernetes", "off",
	}, args...)
	return l.Start(Spec{Name: "dnstrace", Path: path, Args: all, Env: []string{"NODE_NAME=" + NodeName},
		Stdout: stdout, Ready: ReadyLine("dnstrace: ready")})
}

// NodeName is what the tracer calls its node: not by the name of the machine, which
// stays out of what is recorded and pasted.
const NodeName = "node-1"

// DnstracePath returns the path of bin/dnstrace.
func (l *Lab) DnstracePath() (string, error) { return findBinary(l.cfg.Dnstrace, "dnstrace") }

// Dnstrace runs bin/dnstrace on the host to its end, for example explain or
// watch with "--api", l.APISocket(), and returns its standard output.
func (l *Lab) Dnstrace(ctx context.Context, args ...string) (string, error) {
	path, err := findBinary(l.cfg.Dnstrace, "dnstrace")
	if err != nil {
		return "", err
	}
	return l.Run(ctx, Spec{Name: "dnstrace-" + args[0], Path: path, Args: args})
}

// Run runs a program to its end and returns its standard output. An exit code
// other than 0 is an error, which quotes standard error. When ctx ends first,
// the program is stopped. Spec.Ready is not used.
func (l *Lab) Run(ctx context.Context, spec Spec) (stdout string, err error) {
	base, err := os.MkdirTemp(l.dir, spec.Name+"-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(base)) }()
	p := &Process{Spec: spec, lab: l, stdout: filepath.Join(base, "run.stdout"), stderr: filepath.Join(base, "run.stderr")}
	cmd, err := p.command()
	if err != nil {
		return "", fmt.Errorf("run %s: %w", spec.Name, err)
	}
	if err := p.launch(cmd); err != nil {
		return "", fmt.Errorf("run %s: %w", spec.Name, err)
	}
	select {
	case <-p.Exited():
	case <-ctx.Done():
		return p.Stdout(), fmt.Errorf("run %s: %w%s", spec.Name, ctx.Err(), stopped(p))
	}
	if code := p.ExitCode(); code != 0 {
		return p.Stdout(), fmt.Errorf("%s %s: exit code %d: %s", spec.Name, strings.Join(spec.Args, " "), code, strings.TrimSpace(p.Stderr()))
	}
	return p.Stdout(), nil
}

// stopped stops a process and words what there is to say of it.
func stopped(p *Process) string {
	if err := p.end(); err != nil {
		return ": " + err.Error()
	}
	return p.tail()
}
