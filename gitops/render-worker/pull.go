package main

import (
	"bytes"
	"encoding/json"
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
	access, err := accessTo(repositoryURL, req.Repositories)
	if err != nil {
		return nil, err
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

// accessTo finds the longest known URL that the repository is under.
func accessTo(repositoryURL string, known []repository) (repository, error) {
	access := repository{}
	if strings.HasPrefix(repositoryURL, "@") || strings.HasPrefix(repositoryURL, "alias:") {
		return access, fmt.Errorf("repository %s is an alias; expected a URL", repositoryURL)
	}
	for _, k := range known {
		if strings.HasPrefix(strings.TrimSuffix(repositoryURL, "/")+"/", strings.TrimSuffix(k.URL, "/")+"/") && len(k.URL) > len(access.URL) {
			access = k
		}
	}
	return access, nil
}

// resolveRequest asks which version a range means.
type resolveRequest struct {
	Chart        remoteChart  `json:"chart"`
	Repositories []repository `json:"repositories"`
}

// resolve answers with one string.
func resolve(req *resolveRequest) ([]json.RawMessage, error) {
	access, err := accessTo(req.Chart.Repository, req.Repositories)
	if err != nil {
		return nil, err
	}
	version, err := resolveVersion(req.Chart, access)
	if err != nil {
		return nil, errors.New(hide(err.Error(), access))
	}
	encoded, err := json.Marshal(version)
	return []json.RawMessage{encoded}, err
}

func resolveVersion(wanted remoteChart, access repository) (string, error) {
	if base, ok := strings.CutPrefix(wanted.Repository, "oci://"); ok {
		client, err := registryClient(access)
		if err != nil {
			return "", err
		}
		tags, err := client.Tags(ociReference(base, wanted.Name))
		if err != nil {
			return "", err
		}
		return registry.GetTagMatchingVersionOrConstraint(tags, wanted.Version)
	}
	dir, err := os.MkdirTemp("", "tidegate-render-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	getters, files, err := prepare(dir, access)
	if err != nil {
		return "", err
	}
	charts, err := repo.NewChartRepository(&repo.Entry{
		Name: "repository", URL: wanted.Repository, Username: access.Username, Password: access.Password,
		CAFile: files["ca"], CertFile: files["cert"], KeyFile: files["key"], InsecureSkipTLSVerify: access.Insecure,
	}, getters)
	if err != nil {
		return "", err
	}
	charts.CachePath = dir
	index, err := charts.DownloadIndexFile()
	if err != nil {
		return "", err
	}
	loaded, err := repo.LoadIndexFile(index)
	if err != nil {
		return "", err
	}
	found, err := loaded.Get(wanted.Name, wanted.Version)
	if err != nil {
		return "", fmt.Errorf("chart %s, version %q in %s: %w", wanted.Name, wanted.Version, wanted.Repository, err)
	}
	return found.Version, nil
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
	getters, files, err := prepare(dir, access)
	if err != nil {
		return nil, err
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

// prepare makes getters that keep their files in a directory of their own, and writes what is trusted there.
func prepare(dir string, access repository) (getter.Providers, map[string]string, error) {
	settings := cli.New()
	settings.RepositoryCache, settings.RepositoryConfig = filepath.Join(dir, "cache"), filepath.Join(dir, "repositories.yaml")
	if err := os.Setenv("HELM_CACHE_HOME", dir); err != nil {
		return nil, nil, err
	}
	files := map[string]string{"ca": access.CA, "cert": access.Cert, "key": access.Key}
	for kind, content := range files {
		if content == "" {
			continue
		}
		name := filepath.Join(dir, kind)
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			return nil, nil, err
		}
		files[kind] = name
	}
	return getter.All(settings), files, nil
}

func registryClient(access repository) (*registry.Client, error) {
	options := []registry.ClientOption{registry.ClientOptWriter(io.Discard)}
	if access.Username != "" || access.Password != "" {
		options = append(options, registry.ClientOptBasicAuth(access.Username, access.Password))
	}
	if access.PlainHTTP {
		options = append(options, registry.ClientOptPlainHTTP())
	}
	return registry.NewClient(options...)
}

func ociReference(base, name string) string {
	if name == "" {
		return base
	}
	return strings.TrimSuffix(base, "/") + "/" + name
}

func downloadOCI(base, name, version string, access repository) ([]byte, error) {
	client, err := registryClient(access)
	if err != nil {
		return nil, err
	}
	reference := ociReference(base, name)
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
