package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/cli"
	"helm.sh/helm/v4/pkg/getter"
	"helm.sh/helm/v4/pkg/registry"
	repo "helm.sh/helm/v4/pkg/repo/v1"
)

// remoteChart names a chart of a chart repository.
type remoteChart struct {
	Repository string `json:"repository"`
	Name       string `json:"name"`
	// Version may be a range.
	Version string `json:"version"`
}

// repository says how to reach a chart repository, and everything under its URL.
type repository struct {
	URL       string `json:"url"`
	Username  string `json:"username"`
	Password  string `json:"password"`
	Insecure  bool   `json:"insecure"`
	PlainHTTP bool   `json:"plainHttp"`
	CA        string `json:"ca"`
	Cert      string `json:"cert"`
	Key       string `json:"key"`
}

// pull gets a chart over the network.
func pull(repositoryURL, name, version string, req *helmRequest) (*chart.Chart, error) {
	if strings.HasPrefix(repositoryURL, "@") || strings.HasPrefix(repositoryURL, "alias:") {
		return nil, fmt.Errorf("repository %s is an alias; expected a URL", repositoryURL)
	}
	access := repository{}
	for _, known := range req.Repositories {
		if strings.HasPrefix(strings.TrimSuffix(repositoryURL, "/")+"/", strings.TrimSuffix(known.URL, "/")+"/") && len(known.URL) > len(access.URL) {
			access = known
		}
	}
	dir, err := os.MkdirTemp("", "tidegate-render-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	data, err := download(repositoryURL, name, version, access, req.PassCredentials, dir)
	if err != nil {
		return nil, errors.New(hide(err.Error(), access))
	}
	return loader.LoadArchive(bytes.NewReader(data))
}

// fetch gets a values file over the network.
func fetch(url string) (string, error) {
	scheme, _, _ := strings.Cut(url, "://")
	get, err := getter.All(cli.New()).ByScheme(scheme)
	if err != nil {
		return "", err
	}
	content, err := get.Get(url, getter.WithURL(url))
	if err != nil {
		return "", err
	}
	return content.String(), nil
}

// hide takes the password out of a text.
func hide(text string, access repository) string {
	for _, secret := range []string{access.Password, access.Key} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	return text
}

func download(repositoryURL, name, version string, access repository, passCredentials bool, dir string) ([]byte, error) {
	if strings.HasPrefix(repositoryURL, "oci://") {
		return downloadOCI(strings.TrimPrefix(repositoryURL, "oci://"), name, version, access)
	}
	// Helm's index cache must not be shared with anybody.
	settings := cli.New()
	settings.RepositoryCache, settings.RepositoryConfig = filepath.Join(dir, "cache"), filepath.Join(dir, "repositories.yaml")
	os.Setenv("HELM_CACHE_HOME", dir)
	getters := getter.All(settings)
	files := map[string]string{"ca": access.CA, "cert": access.Cert, "key": access.Key}
	for kind, content := range files {
		if content == "" {
			continue
		}
		name := filepath.Join(dir, kind)
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			return nil, err
		}
		files[kind] = name
	}
	url, err := repo.FindChartInRepoURL(repositoryURL, name, getters,
		repo.WithChartVersion(version),
		repo.WithUsernamePassword(access.Username, access.Password),
		repo.WithPassCredentialsAll(passCredentials),
		repo.WithClientTLS(files["cert"], files["key"], files["ca"]),
		repo.WithInsecureSkipTLSVerify(access.Insecure))
	if err != nil {
		return nil, err
	}
	scheme, _, _ := strings.Cut(url, "://")
	get, err := getters.ByScheme(scheme)
	if err != nil {
		return nil, err
	}
	content, err := get.Get(url,
		getter.WithURL(repositoryURL),
		getter.WithBasicAuth(access.Username, access.Password),
		getter.WithPassCredentialsAll(passCredentials),
		getter.WithTLSClientConfig(files["cert"], files["key"], files["ca"]),
		getter.WithInsecureSkipVerifyTLS(access.Insecure))
	if err != nil {
		return nil, err
	}
	return content.Bytes(), nil
}

func downloadOCI(base, name, version string, access repository) ([]byte, error) {
	options := []registry.ClientOption{registry.ClientOptWriter(io.Discard)}
	if access.Username != "" || access.Password != "" {
		options = append(options, registry.ClientOptBasicAuth(access.Username, access.Password))
	}
	if access.PlainHTTP {
		options = append(options, registry.ClientOptPlainHTTP())
	}
	client, err := registry.NewClient(options...)
	if err != nil {
		return nil, err
	}
	reference := base
	if name != "" {
		reference = strings.TrimSuffix(base, "/") + "/" + name
	}
	tags, err := client.Tags(reference)
	if err != nil {
		return nil, err
	}
	tag, err := registry.GetTagMatchingVersionOrConstraint(tags, version)
	if err != nil {
		return nil, err
	}
	pulled, err := client.Pull(reference + ":" + tag)
	if err != nil {
		return nil, err
	}
	return pulled.Chart.Data, nil
}
