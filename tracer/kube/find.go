package kube

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/dnstrace/dnstrace/trace/trustedpath"
)

// Values of --kubernetes; any other is the path of a kubeconfig.
const (
	Auto = "auto"
	Off  = "off"
)

// Find returns where the API server is, as set by --kubernetes: auto is the configuration
// inside a pod. It is nil where there is no Kubernetes, and why says so; only an unusable
// kubeconfig is an error. It does not contact the API server.
//
// A kubeconfig may name a command from which credentials come. It runs as this process's
// user, with its environment, when the API server is asked; one that others could change is
// refused.
//
// It reads the kubeconfig: call it before privileges are dropped. The token and the
// certificates that it, or a pod's service account, names as files are reread when they
// change, as this process's user.
func Find(setting string) (cfg *rest.Config, why string, err error) {
	switch setting {
	case Off:
		return nil, "off", nil
	case Auto:
		cfg, err := rest.InClusterConfig()
		switch {
		case errors.Is(err, rest.ErrNotInCluster):
			return nil, "this is no pod: name a kubeconfig with --kubernetes to see names of pods", nil
		case errors.Is(err, fs.ErrNotExist):
			return nil, "this pod has no service account (automountServiceAccountToken: false)", nil
		case err != nil:
			return nil, fmt.Sprintf("the service account of this pod cannot be used: %v", err), nil
		}
		return cfg, "", nil
	}
	cfg, err = clientcmd.BuildConfigFromFlags("", setting)
	if err != nil {
		return nil, "", fmt.Errorf("--kubernetes %s: expected auto, off, or a kubeconfig: %w", setting, err)
	}
	if cfg.ExecProvider != nil {
		if err := trustedpath.File(setting); err != nil {
			return nil, "", fmt.Errorf("--kubernetes: the kubeconfig names a command, which runs as this user: %w", err)
		}
	}
	return cfg, "", nil
}

// NodeName returns the name of this node: NODE_NAME, which a DaemonSet sets from
// spec.nodeName, or else the host's name, which is the kubelet's default.
func NodeName() (string, error) {
	if name := os.Getenv("NODE_NAME"); name != "" {
		return name, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("kubernetes: the name of this node: %w; set NODE_NAME", err)
	}
	return strings.ToLower(strings.TrimSpace(name)), nil
}
