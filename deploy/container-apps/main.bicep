// One container app with two containers: the gateway receives all traffic, SimpleChat listens on loopback.
// Steps: docs/deploy/container-apps.md
targetScope = 'resourceGroup'

@description('Region of the environment')
param location string = resourceGroup().location

@description('Name of the container app')
param name string = 'simplechat'

@description('Resource id of the Container Apps environment')
param environmentId string

@description('Resource id of a user-assigned identity that can pull from the registry and read the secrets in Key Vault')
param identityId string

@description('Host name of the registry that holds both images')
param registryServer string

@description('Image of the gateway: REGISTRY/simplechat-gateway@sha256:… or :VERSION')
param gatewayImage string

@description('Image of SimpleChat: REGISTRY/simplechat@sha256:… or :TAG')
param simpleChatImage string

@description('Entra tenant: TENANT_ID of SimpleChat')
param tenantId string

@description('SimpleChat\'s app registration: CLIENT_ID of SimpleChat')
param clientId string

@description('Public origins, comma-separated, the canonical one first; empty: the address of the app')
param publicUrls string = ''

@description('on: tenant and client ids become public, as accepted in exposureAcceptedBy; managed: administrators opt in, which requires databaseUrlSecretUri')
@allowed([
  'off'
  'on'
  'managed'
])
param externalAccess string = 'off'

@description('Name and date of the acceptance. Required with on')
param exposureAcceptedBy string = ''

@description('URI of the Key Vault secret with DATABASE_URL: postgres://… for several instances. Required with managed; empty: the activity log goes to stderr and telemetry only')
param databaseUrlSecretUri string = ''

@description('Host name of Redis, as in SimpleChat\'s admin page. Empty: session files and one replica')
param redisHost string = ''

@description('URI of the Key Vault secret with Redis\' access key. Required with redisHost')
param redisKeySecretUri string = ''

@description('SimpleChat\'s own settings without secrets: [{ name: \'AZURE_COSMOS_ENDPOINT\', value: \'…\' }]. Names that this file sets for SimpleChat (TENANT_ID, CLIENT_ID, GUNICORN_BIND, …) must not be among them')
param simpleChatSettings array

@description('SimpleChat\'s own secrets: [{ name: \'SECRET_KEY\', secretUri: \'https://…/secrets/…\' }]')
param simpleChatSecrets array

@description('Maximum number of replicas with Redis')
@minValue(1)
@maxValue(30)
param maxReplicas int = 4

var clouds = {
  AzureCloud: 'public'
  AzureUSGovernment: 'usgovernment'
  AzureChinaCloud: 'china'
}
var cloud = clouds[environment().name]
var hasRedis = !empty(redisHost)
var hasDatabase = !empty(databaseUrlSecretUri)
var ownUrl = 'https://${name}.${containerEnvironment.properties.defaultDomain}'

// Secrets are named by their index: setting names can contain characters that secret names must not.
var simpleChatVault = [for (item, index) in simpleChatSecrets: {
  name: 'simplechat-${index}'
  keyVaultUrl: item.secretUri
  identity: identityId
}]
var simpleChatSecretSettings = [for (item, index) in simpleChatSecrets: {
  name: item.name
  secretRef: 'simplechat-${index}'
}]
var redisVault = hasRedis ? [
  {
    name: 'redis-key'
    keyVaultUrl: redisKeySecretUri
    identity: identityId
  }
] : []
var databaseVault = hasDatabase ? [
  {
    name: 'database-url'
    keyVaultUrl: databaseUrlSecretUri
    identity: identityId
  }
] : []

var gatewaySettings = [
  { name: 'TENANT_ID', value: tenantId }
  { name: 'CLIENT_ID', value: clientId }
  { name: 'AZURE_ENVIRONMENT', value: cloud }
  { name: 'GATEWAY_LISTEN', value: '0.0.0.0:8080' }
  { name: 'GATEWAY_OPS_LISTEN', value: '127.0.0.1:9464' }
  { name: 'GATEWAY_UPSTREAM_URL', value: 'http://127.0.0.1:5000' }
  { name: 'GATEWAY_PUBLIC_URLS', value: empty(publicUrls) ? ownUrl : publicUrls }
  { name: 'GATEWAY_EXTERNAL_ACCESS', value: externalAccess }
  { name: 'GATEWAY_EXPOSURE_ACCEPTED_BY', value: exposureAcceptedBy }
  { name: 'GATEWAY_DRAIN_DELAY', value: '5s' }
  { name: 'GATEWAY_DRAIN_TIMEOUT', value: '45s' }
]
// Secrets are files: environment variables are inherited and appear in dumps.
var redisSettings = [
  { name: 'SESSION_TYPE', value: 'redis' }
  { name: 'REDIS_URL', value: redisHost }
  { name: 'REDIS_PASSWORD_FILE', value: '/run/secrets/simplechat-gateway/REDIS_PASSWORD' }
]
var databaseSettings = [
  { name: 'DATABASE_URL_FILE', value: '/run/secrets/simplechat-gateway/DATABASE_URL' }
]
var secretFiles = concat(hasRedis ? [
  {
    secretRef: 'redis-key'
    path: 'REDIS_PASSWORD'
  }
] : [], hasDatabase ? [
  {
    secretRef: 'database-url'
    path: 'DATABASE_URL'
  }
] : [])
var fileSettings = [
  { name: 'SESSION_TYPE', value: 'filesystem' }
  { name: 'SESSION_FILE_DIR', value: '/app/flask_session' }
  { name: 'GATEWAY_STATE_DIR', value: '/app/flask_session.gateway' }
]
var simpleChatOwnSettings = [
  { name: 'TENANT_ID', value: tenantId }
  { name: 'CLIENT_ID', value: clientId }
  { name: 'AZURE_ENVIRONMENT', value: cloud }
  { name: 'GUNICORN_BIND', value: '127.0.0.1:5000' }
  { name: 'GUNICORN_CMD_ARGS', value: '--forwarder-headers=X-NONE --limit-request-field_size=16408' }
]

// Volumes that live as long as the replica and survive restarts of a container. EmptyDir has no size limit of its own
// here; the platform's storage limit of a replica applies.
var sessionVolumes = hasRedis ? [] : [
  {
    name: 'sessions'
    storageType: 'EmptyDir'
  }
  {
    name: 'notes'
    storageType: 'EmptyDir'
  }
]
// Without this list a secret volume would contain all secrets, SimpleChat's included.
var secretVolumes = empty(secretFiles) ? [] : [
  {
    name: 'secrets'
    storageType: 'Secret'
    secrets: secretFiles
  }
]
var secretMounts = empty(secretFiles) ? [] : [
  {
    volumeName: 'secrets'
    mountPath: '/run/secrets/simplechat-gateway'
  }
]
var sessionsMount = {
  volumeName: 'sessions'
  mountPath: '/app/flask_session'
}
var notesMount = {
  volumeName: 'notes'
  mountPath: '/app/flask_session.gateway'
}

resource containerEnvironment 'Microsoft.App/managedEnvironments@2025-01-01' existing = {
  name: last(split(environmentId, '/'))
  scope: resourceGroup(split(environmentId, '/')[2], split(environmentId, '/')[4])
}

resource app 'Microsoft.App/containerApps@2025-01-01' = {
  name: name
  location: location
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    environmentId: environmentId
    configuration: {
      activeRevisionsMode: 'Single'
      ingress: {
        external: true
        targetPort: 8080
        // HTTP/1.1 to the gateway; clients can use HTTP/2 to the ingress.
        transport: 'http'
        allowInsecure: false
      }
      registries: [
        {
          server: registryServer
          identity: identityId
        }
      ]
      secrets: concat(simpleChatVault, redisVault, databaseVault)
    }
    template: {
      terminationGracePeriodSeconds: 60
      // The gateway is first: Container Apps adds default probes to the first container.
      containers: [
        {
          name: 'gateway'
          image: gatewayImage
          env: concat(gatewaySettings, hasRedis ? redisSettings : fileSettings, hasDatabase ? databaseSettings : [])
          resources: {
            cpu: json('0.25')
            memory: '0.5Gi'
          }
          probes: [
            {
              type: 'Startup'
              httpGet: {
                path: '/gateway/health/live'
                port: 8080
              }
              periodSeconds: 2
              failureThreshold: 30
            }
            {
              type: 'Liveness'
              httpGet: {
                path: '/gateway/health/live'
                port: 8080
              }
              periodSeconds: 10
              failureThreshold: 3
            }
            {
              type: 'Readiness'
              httpGet: {
                path: '/gateway/health/ready'
                port: 8080
              }
              periodSeconds: 5
              failureThreshold: 1
            }
          ]
          volumeMounts: concat(secretMounts, hasRedis ? [] : [
            sessionsMount
            notesMount
          ])
        }
        {
          // No probes: it listens on loopback only. The gateway becomes ready when SimpleChat has answered.
          name: 'simplechat'
          image: simpleChatImage
          env: concat(simpleChatOwnSettings, simpleChatSettings, simpleChatSecretSettings)
          resources: {
            cpu: json('1.75')
            memory: '3.5Gi'
          }
          volumeMounts: hasRedis ? [] : [
            sessionsMount
          ]
        }
      ]
      volumes: concat(secretVolumes, sessionVolumes)
      scale: {
        minReplicas: 1
        // Session files are local to a replica: a second replica would not know the sessions.
        maxReplicas: hasRedis ? maxReplicas : 1
        rules: [
          {
            // SimpleChat serves 16 concurrent requests (gunicorn, 2 × 8 threads).
            name: 'simplechat-threads'
            http: {
              metadata: {
                concurrentRequests: '12'
              }
            }
          }
        ]
      }
    }
  }
}

output url string = 'https://${app.properties.configuration.ingress.fqdn}'
