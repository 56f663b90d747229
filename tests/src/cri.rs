//! A container runtime that a test makes up: it answers the container runtime interface as the test says, or as it should
//! not.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_cri::v1::{
    Container, ContainerEventResponse, ContainerEventType, ContainerMetadata, ContainerStatusRequest,
    ContainerStatusResponse, GetEventsRequest, ImageSpec, ListContainersRequest, ListContainersResponse,
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxMetadata,
    runtime_service_server::{RuntimeService, RuntimeServiceServer},
};
use tokio::{
    net::UnixListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, transport::Server};

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    /// As it should.
    Honest,
    /// It takes calls and never answers.
    Hangs,
    /// To whoever asks for one container it tells of another.
    WrongIds,
}

/// A pod's container, as a kubelet has it made.
#[derive(Clone, Debug)]
pub struct Made {
    pub id: String,
    pub sandbox: String,
    pub pod: String,
    pub namespace: String,
    pub uid: String,
    pub name: String,
    pub image: String,
    /// The pod's.
    pub labels: HashMap<String, String>,
    pub annotations: HashMap<String, String>,
}

impl Made {
    /// The container `server` of a pod in the namespace `shop`. The number tells its ids.
    pub fn new(number: usize, pod: &str) -> Self {
        let process = std::process::id();
        Self {
            id: format!("{process:08x}{number:056x}"),
            sandbox: format!("{process:08x}{:056x}", number + (1 << 32)),
            pod: pod.to_owned(),
            namespace: "shop".to_owned(),
            uid: format!("{process:08x}-5b6a-4c7d-8e9f-{number:012x}"),
            name: "server".to_owned(),
            image: "registry.example/shop/server:1.2".to_owned(),
            labels: HashMap::from([
                ("app".to_owned(), "server".to_owned()),
                ("secret".to_owned(), "x".to_owned()),
            ]),
            annotations: HashMap::new(),
        }
    }

    /// Its cgroup below another one, by the cgroupfs driver.
    pub fn cgroup(&self) -> String {
        format!("kubepods/burstable/pod{}/{}", self.uid, self.id)
    }

    fn container(&self) -> Container {
        Container {
            id: self.id.clone(),
            pod_sandbox_id: self.sandbox.clone(),
            metadata: Some(ContainerMetadata { name: self.name.clone(), attempt: 0 }),
            image: Some(ImageSpec { image: self.image.clone(), ..ImageSpec::default() }),
            annotations: self.annotations.clone(),
            ..Container::default()
        }
    }

    fn sandbox(&self) -> PodSandbox {
        PodSandbox {
            id: self.sandbox.clone(),
            metadata: Some(PodSandboxMetadata {
                name: self.pod.clone(),
                uid: self.uid.clone(),
                namespace: self.namespace.clone(),
                attempt: 0,
            }),
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
            ..PodSandbox::default()
        }
    }
}

/// What the runtime knows.
#[derive(Debug, Default)]
struct Known {
    made: Vec<Made>,
    /// More entries for whoever lists, such as nonsense.
    more: Vec<Container>,
    listeners: Vec<mpsc::Sender<Result<ContainerEventResponse, Status>>>,
}

impl Known {
    fn tell(&mut self, event: &ContainerEventResponse) {
        self.listeners.retain(|listener| listener.try_send(Ok(event.clone())).is_ok());
    }
}

/// The runtime; it ends with this value, and its socket with it.
#[derive(Debug)]
pub struct FakeRuntime {
    runtime: tokio::runtime::Runtime,
    server: Option<JoinHandle<()>>,
    socket: PathBuf,
    service: Service,
}

#[derive(Clone, Debug)]
struct Service {
    known: Arc<Mutex<Known>>,
    manners: watch::Sender<Manners>,
    tells: bool,
}

impl FakeRuntime {
    /// Listens at this path. `tells` says whether it knows `GetContainerEvents`.
    pub fn start(socket: &Path, tells: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let service = Service { known: Arc::default(), manners: watch::Sender::new(Manners::Honest), tells };
        let mut this = Self { runtime, server: None, socket: socket.to_owned(), service };
        this.listen();
        this
    }

    /// Begins to listen, with all that it knows.
    pub fn listen(&mut self) {
        let _guard = self.runtime.enter();
        let listener = UnixListener::bind(&self.socket).expect("a socket");
        let service = RuntimeServiceServer::new(self.service.clone());
        let serve =
            Server::builder().add_service(service).serve_with_incoming(UnixListenerStream::new(listener));
        self.server = Some(self.runtime.spawn(async move {
            serve.await.expect("a server");
        }));
    }

    /// Ends the server with all its connections, as if it was killed.
    pub fn die(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let ended = self.runtime.block_on(server);
            assert!(ended.is_err_and(|error| error.is_cancelled()));
        }
        self.service.known().listeners.clear();
        let _gone = std::fs::remove_file(&self.socket);
    }

    pub fn behave(&self, manners: Manners) {
        self.service.manners.send_replace(manners);
    }

    /// From here on it knows a container.
    pub fn make(&self, made: &Made) {
        let mut known = self.service.known();
        known.made.push(made.clone());
        let event =
            ContainerEventResponse { container_id: made.id.clone(), ..ContainerEventResponse::default() };
        known.tell(&event);
    }

    /// From here on it does not know a container any more.
    pub fn forget(&self, made: &Made) {
        let mut known = self.service.known();
        known.made.retain(|known| known.id != made.id);
        let event = ContainerEventResponse {
            container_id: made.id.clone(),
            container_event_type: ContainerEventType::ContainerDeletedEvent.into(),
            ..ContainerEventResponse::default()
        };
        known.tell(&event);
    }

    /// It lists this too.
    pub fn add(&self, entry: Container) {
        self.service.known().more.push(entry);
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for FakeRuntime {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }
}

impl Service {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once it does not hang.
    async fn ready(&self) -> Manners {
        let mut manners = self.manners.subscribe();
        let ready = manners.wait_for(|manners| *manners != Manners::Hangs).await;
        ready.map_or(Manners::Honest, |manners| *manners)
    }
}

/// The service, with what it does and what it refuses.
macro_rules! service {
    ({ $($done:tt)* } refuses $($name:ident($request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl RuntimeService for Service {
            $($done)*
            $(
                async fn $name(
                    &self,
                    _: Request<k8s_cri::v1::$request>,
                ) -> Result<Response<k8s_cri::v1::$response>, Status> {
                    Err(Status::unimplemented("not here"))
                }
            )*
        }
    };
}

service! {
    {
        type GetContainerEventsStream = ReceiverStream<Result<ContainerEventResponse, Status>>;

        async fn get_container_events(
            &self,
            _: Request<GetEventsRequest>,
        ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
            if !self.tells {
                return Err(Status::unimplemented("not here"));
            }
            let (sender, receiver) = mpsc::channel(1024);
            self.known().listeners.push(sender);
            Ok(Response::new(ReceiverStream::new(receiver)))
        }

        async fn list_containers(
            &self,
            request: Request<ListContainersRequest>,
        ) -> Result<Response<ListContainersResponse>, Status> {
            let manners = self.ready().await;
            let id = request.into_inner().filter.map(|filter| filter.id).unwrap_or_default();
            let known = self.known();
            let is_asked = |made: &&Made| id.is_empty() || (made.id == id) == (manners == Manners::Honest);
            let mut containers: Vec<_> = known.made.iter().filter(is_asked).map(Made::container).collect();
            containers.extend(known.more.iter().cloned());
            Ok(Response::new(ListContainersResponse { containers }))
        }

        async fn list_pod_sandbox(
            &self,
            request: Request<ListPodSandboxRequest>,
        ) -> Result<Response<ListPodSandboxResponse>, Status> {
            self.ready().await;
            let id = request.into_inner().filter.map(|filter| filter.id).unwrap_or_default();
            let known = self.known();
            let is_asked = |made: &&Made| id.is_empty() || made.sandbox == id;
            let items = known.made.iter().filter(is_asked).map(Made::sandbox).collect();
            Ok(Response::new(ListPodSandboxResponse { items }))
        }

        async fn container_status(
            &self,
            _: Request<ContainerStatusRequest>,
        ) -> Result<Response<ContainerStatusResponse>, Status> {
            self.ready().await;
            Err(Status::not_found("no such container"))
        }
    }
    refuses
    version(VersionRequest) -> VersionResponse;
    run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse;
    stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse;
    remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse;
    pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse;
    create_container(CreateContainerRequest) -> CreateContainerResponse;
    start_container(StartContainerRequest) -> StartContainerResponse;
    stop_container(StopContainerRequest) -> StopContainerResponse;
    remove_container(RemoveContainerRequest) -> RemoveContainerResponse;
    update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse;
    reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
    exec_sync(ExecSyncRequest) -> ExecSyncResponse;
    exec(ExecRequest) -> ExecResponse;
    attach(AttachRequest) -> AttachResponse;
    port_forward(PortForwardRequest) -> PortForwardResponse;
    container_stats(ContainerStatsRequest) -> ContainerStatsResponse;
    list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
    pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
    list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
    update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse;
    status(StatusRequest) -> StatusResponse;
    checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse;
    list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse;
    list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse;
    runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse;
}
